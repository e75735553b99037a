//! The routers of the models and components that are served now.
//!
//! A `Snapshot` is everything that a request uses: models, components, routes, keys, limits. Each
//! request takes one once its head has arrived and keeps it to its end, so its answer comes from
//! exactly one. A reload replaces the snapshot atomically; requests in flight keep theirs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use infer_control::live::{self, Live, Publish, Read};
use infer_control::registry::Registry;
use tracing::warn;

use crate::routes::{self, RequestContext};

/// The HTTP service: routers for the current [`Registry`], replaced at each reload.
pub struct Service {
    current: ArcSwap<Snapshot>,
    live: Arc<Live>,
    /// Address of the operator's listener, if any.
    admin: Option<SocketAddr>,
    stopping: Arc<AtomicBool>,
}

/// Routers of one snapshot.
struct Snapshot {
    registry: Arc<Registry>,
    context: Arc<RequestContext>,
    public: Router,
    admin: Router,
    /// The routes for requests that a canary answers.
    canary: Option<Router>,
}

impl Service {
    /// Serves `registry` from now on, and the result of `read` after each reload. Requests are
    /// handled on the current runtime. `admin` is the address of the operator's listener, if any.
    #[must_use]
    pub fn new(registry: Arc<Registry>, admin: Option<SocketAddr>, read: Option<Read>) -> Arc<Self> {
        Arc::new_cyclic(|service: &Weak<Service>| {
            let service = service.clone();
            let publish: Publish = Box::new(move |registry| {
                if let Some(service) = service.upgrade() {
                    service.publish(registry);
                }
            });
            let live = Live::new(registry.clone(), read, publish);
            let stopping = Arc::new(AtomicBool::new(false));
            let context = RequestContext::new(registry, Arc::downgrade(&live), stopping.clone());
            Service { current: ArcSwap::from_pointee(Snapshot::new(context, admin)), live, admin, stopping }
        })
    }

    /// The reloads of this service.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The current routes: the operator's, or the public ones.
    pub fn router(&self, admin: bool) -> Router {
        let current = self.current.load();
        let router = match (&current.canary, &current.registry.canary) {
            _ if admin => &current.admin,
            (Some(router), Some(canary)) if canary.takes_next() => router,
            _ => &current.public,
        };
        router.clone()
    }

    /// Reports the server as not ready from now on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn publish(&self, registry: &Arc<Registry>) {
        let context = self.current.load().context.next(registry.clone());
        self.current.store(Arc::new(Snapshot::new(context, self.admin)));
    }

    /// Releases everything, and waits at most `limit` for requests and computations in flight.
    pub async fn unload(self: Arc<Self>, limit: Duration) {
        let deadline = Instant::now() + limit;
        let unloaded = match live::take_when_sole_owner(self, deadline).await {
            Some(Service { live, current, .. }) => {
                drop(current);
                live.unload(deadline).await
            }
            None => false,
        };
        if !unloaded {
            warn!("stopping while a request or a model is still running");
        }
    }
}

impl Snapshot {
    fn new(context: RequestContext, admin: Option<SocketAddr>) -> Self {
        let context = Arc::new(context);
        let registry = context.registry().clone();
        let public = routes::router(&context, admin.is_some());
        let admin_router = routes::admin(&context, admin);
        let canary = registry.canary.as_ref().map(|canary| {
            let context = Arc::new(context.next(canary.registry.clone()));
            routes::router(&context, admin.is_some())
        });
        Snapshot { registry, context, public, admin: admin_router, canary }
    }
}
