//! Idle connections of an upstream. There are never more than `connections` of them, because each
//! comes from a request that had one of so many slots.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::connection::Connection;
use crate::limits::MAX_IDLE_TIME;

/// Idle connections, the latest one last.
#[derive(Default)]
pub(super) struct Pool {
    /// Locked for a few instructions.
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Connection>,
    /// True while a task closes connections that have been idle for too long.
    is_swept: bool,
}

impl Pool {
    /// Takes the connection that was used last, if any is open.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        loop {
            let connection = idle.connections.pop()?;
            if !connection.sender.is_closed() && connection.idle.elapsed() < MAX_IDLE_TIME {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose response was read completely.
    pub(super) fn put(self: &Arc<Self>, mut connection: Connection) {
        connection.idle = Instant::now();
        let mut idle = self.idle();
        idle.connections.push(connection);
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what is closed or too old. Returns the time until the next one is, or `None` if there
    /// is none.
    fn drop_old(&self) -> Option<Duration> {
        let mut idle = self.idle();
        idle.connections
            .retain(|connection| !connection.sender.is_closed() && connection.idle.elapsed() < MAX_IDLE_TIME);
        let next =
            idle.connections.iter().map(|connection| MAX_IDLE_TIME.saturating_sub(connection.idle.elapsed()));
        let next = next.min();
        idle.is_swept = next.is_some();
        next
    }
}

/// Closes idle connections in time, until there are none.
async fn sweep(pool: Weak<Pool>) {
    let mut wait = MAX_IDLE_TIME;
    loop {
        sleep(wait).await;
        let Some(next) = pool.upgrade().and_then(|pool| pool.drop_old()) else { return };
        wait = next.max(Duration::from_millis(100));
    }
}
