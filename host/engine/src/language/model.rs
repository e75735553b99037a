//! A loaded language model: it takes requests, and its thread answers them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use infer_kernels::{BLOCK_TOKENS, Pool};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::config::DecoderConfig;
use super::decoder::{Decoder, Packing};
use super::gguf::{DUMMY, Gguf, GgufError};
use super::inbox::{Inbox, Refused};
use super::job::Job;
use super::kv::KvPool;
use super::preparation::{Preparation, Prepared, Unprepared};
use super::request::{Answer, Output, Piece, Prompt, Request};
use super::scheduler::{Scheduler, Shared};
use super::session::Session;
use super::tensors;
use super::tokenizer::Tokenizer;
use crate::model::{Capacity, Counters, LoadError, Reply, RunError, Stats};
use crate::tensor::Tensor;
use crate::weights::{Bytes, PackedSlot};

/// A prompt of more bytes than this for each token of the context is refused before it is split
/// into tokens.
const PROMPT_BYTES_PER_TOKEN: usize = 32;

/// Prompts above this many bytes are split into tokens off the caller's thread: it takes
/// milliseconds.
const LONG_PROMPT_BYTES: usize = 4096;

/// What errors call this engine.
const ENGINE: &str = "the language engine";

/// A loaded language model. Dropping it stops its thread, and waits for the pass that it computes.
pub struct LanguageModel {
    pub(super) shared: Arc<Shared>,
    pub(super) context: usize,
    pub(super) vocabulary: usize,
    dummy: bool,
    /// Long prompts that are split into tokens at once: as many as there are cores.
    preparations: Arc<Semaphore>,
    packed_file: Option<PathBuf>,
    thread: Option<JoinHandle<()>>,
}

impl LanguageModel {
    /// Load the GGUF file `bytes`. Its packed matrices are kept in `slot`, if there is one, for
    /// later starts.
    pub(crate) fn load(
        name: &str,
        bytes: Bytes,
        slot: Option<PackedSlot>,
        capacity: &Capacity,
    ) -> Result<Self, LoadError> {
        let refused = |error: GgufError| LoadError::Backend {
            model: name.to_owned(),
            backend: ENGINE,
            message: error.to_string(),
        };
        let thread = |source| LoadError::Thread { model: name.to_owned(), source };
        let gguf = Gguf::parse(bytes).map_err(refused)?;
        let dummy = gguf.bool(DUMMY).map_err(refused)?.unwrap_or(false);
        let tokenizer = Tokenizer::from_gguf(&gguf).map_err(|error| LoadError::Backend {
            model: name.to_owned(),
            backend: ENGINE,
            message: error.to_string(),
        })?;
        let config = DecoderConfig::read(&gguf, capacity.context_tokens).map_err(refused)?;
        let vocabulary = tokenizer.vocabulary_size();
        let packing = Packing { pool: Pool::new(capacity.threads).map_err(thread)?, slot };
        let decoder = Decoder::load(gguf, config, vocabulary, packing).map_err(refused)?;
        let config = decoder.config();
        let pool = KvPool::new(config.layers, config.attention.layer_elements(), capacity.kv_bytes);
        if pool.capacity() == 0 {
            let message = format!(
                "`kv_bytes` is {}, and a block of {BLOCK_TOKENS} tokens takes {}",
                capacity.kv_bytes,
                pool.block_bytes()
            );
            return Err(LoadError::Backend { model: name.to_owned(), backend: ENGINE, message });
        }
        let context = config.context;
        let packed_file = decoder.packed_file().map(Path::to_owned);
        let kv_tokens = pool.capacity() * BLOCK_TOKENS;
        if kv_tokens < context {
            tracing::warn!(
                model = name,
                kv_tokens,
                context,
                "`kv_bytes` holds less than a context: longer requests are refused"
            );
        }
        tracing::debug!(model = name, weight_bytes = decoder.weight_bytes(), context, dummy, "loaded");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            inbox: Inbox::new(capacity.queue_capacity),
            counters: Counters::default(),
            tokenizer,
            pool,
            sessions: capacity.sessions,
            max_batch: capacity.max_batch,
        });
        let own = shared.clone();
        let builder = std::thread::Builder::new().name(name.replace('\0', " "));
        let serve = move || {
            let shared = Closing(own);
            Scheduler::new(&shared.0, decoder).serve();
        };
        let started = builder.spawn(serve).map_err(thread)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let preparations = Arc::new(Semaphore::new(cores));
        let thread = Some(started);
        Ok(LanguageModel { shared, context, vocabulary, dummy, preparations, packed_file, thread })
    }

    /// Answer `request` in `session`. `stream` receives the text as it is generated.
    ///
    /// Dropping the future withdraws the request between two passes. Needs a tokio runtime with a
    /// timer.
    ///
    /// # Errors
    ///
    /// When the request is malformed or longer than the context, when the queue is full, or at
    /// `deadline`.
    pub async fn run(
        &self,
        session: &mut Session,
        request: Request,
        stream: Option<mpsc::UnboundedSender<Piece>>,
        deadline: Instant,
    ) -> Result<Answer, RunError> {
        let model = || self.shared.name.clone();
        let queued = Instant::now();
        if queued >= deadline {
            return Err(RunError::Deadline { model: model() });
        }
        let prepared = tokio::time::timeout_at(deadline.into(), self.prepare(session, request, deadline));
        let Prepared { said, prompt, declared, pin, work } = match prepared.await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(Unprepared::Invalid(message))) => {
                return Err(RunError::InvalidInput { model: model(), message });
            }
            Ok(Err(Unprepared::Late)) | Err(_) => return Err(RunError::Deadline { model: model() }),
        };
        let (reply, answer) = oneshot::channel();
        let owner = session.owner.clone();
        let job = Job { owner, prompt: prompt.into(), declared, pin, work, stream, queued, deadline, reply };
        let needed = job.blocks();
        if needed > self.shared.pool.capacity() {
            let message = format!(
                "it needs up to {needed} blocks of keys and values, `kv_bytes` has room for {}; ask for fewer tokens, or raise it",
                self.shared.pool.capacity()
            );
            return Err(RunError::InvalidInput { model: model(), message });
        }
        self.push(job)?;
        let answer = match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(RunError::Closed { model: model() }),
            Err(_) => return Err(RunError::Deadline { model: model() }),
        };
        session.tokens = said;
        if let Output::Text { tokens, .. } = &answer.output {
            session.tokens.extend_from_slice(tokens);
        }
        Ok(answer)
    }

    /// As [`LanguageModel::run`], with the request and the answer as tensors.
    pub(crate) async fn run_tensors(
        &self,
        session: &mut Session,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Reply, RunError> {
        let request = tensors::request(inputs)
            .map_err(|message| RunError::InvalidInput { model: self.shared.name.clone(), message })?;
        let answer = self.run(session, request, None, deadline).await?;
        let outputs = tensors::answer(&answer, self.dummy)
            .map_err(|message| RunError::Failed { model: self.shared.name.clone(), message })?;
        let Answer { usage, queue, compute, batch, .. } = answer;
        Ok(Reply { outputs, queue, compute, batch, usage: Some(usage) })
    }

    /// Whether the file says that its weights are random.
    pub fn is_dummy(&self) -> bool {
        self.dummy
    }

    /// The most tokens of a session.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How many tokens `kv_bytes` holds, those of all sessions and cached prefixes together.
    pub fn kv_tokens(&self) -> usize {
        self.shared.pool.capacity() * BLOCK_TOKENS
    }

    /// How many of these are in use: by requests under way, and by prefixes that are kept for later
    /// ones.
    pub fn kv_tokens_used(&self) -> usize {
        self.shared.pool.used() * BLOCK_TOKENS
    }

    /// Whether its thread is there to answer. It ends by a fault of the engine alone; until then
    /// every call is answered.
    pub fn is_serving(&self) -> bool {
        !self.shared.inbox.is_closed()
    }

    /// The file that its packed weights are mapped from; none where they are in memory of this
    /// process alone.
    pub fn packed_file(&self) -> Option<&Path> {
        self.packed_file.as_deref()
    }

    /// How many tokens it knows: a prompt's are below this.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The ids of `text`. Control tokens in it are text.
    ///
    /// # Errors
    ///
    /// When the text is longer than is encoded at once.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, RunError> {
        let refused = |message| RunError::InvalidInput { model: self.shared.name.clone(), message };
        self.shared.tokenizer.encode(text).map_err(|error| refused(error.to_string()))
    }

    /// The instructions that its kernels use on this machine, such as `avx512-vnni`.
    pub fn instruction_set(&self) -> &'static str {
        infer_kernels::instruction_set()
    }

    pub(crate) fn queue_depth(&self) -> usize {
        self.shared.inbox.depth()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    fn push(&self, job: Job) -> Result<(), RunError> {
        let shared = &self.shared;
        let busy = || {
            shared.counters.busy();
            RunError::Busy { model: shared.name.clone(), capacity: shared.inbox.capacity() }
        };
        match shared.inbox.push(job, |dead| shared.skip(dead)) {
            Ok(None) => Ok(()),
            Ok(Some(displaced)) => {
                // Its caller may be gone.
                let _ = displaced.reply.send(Err(busy()));
                Ok(())
            }
            Err(Refused::Full) => Err(busy()),
            Err(Refused::Closed) => Err(RunError::Closed { model: shared.name.clone() }),
        }
    }

    /// From text to tokens, off this thread when that takes long.
    async fn prepare(
        &self,
        session: &Session,
        request: Request,
        deadline: Instant,
    ) -> Result<Prepared, Unprepared> {
        request.check()?;
        let bytes = match &request.prompt {
            Prompt::Text(text) => text.len(),
            Prompt::Messages(messages) => {
                messages.iter().map(|turn| turn.content.len() + turn.role.len()).sum()
            }
            Prompt::Tokens(_) => 0,
        };
        let choices = request.choices.as_deref().unwrap_or_default();
        let bytes = bytes + choices.iter().map(String::len).max().unwrap_or(0);
        if bytes > self.context * PROMPT_BYTES_PER_TOKEN {
            let context = self.context;
            return Err(format!(
                "the prompt has {bytes} bytes, far above the {context} tokens of the context"
            )
            .into());
        }
        let caller = Arc::new(());
        let preparation = Preparation {
            shared: self.shared.clone(),
            before: if request.params.continues { session.tokens.clone() } else { Vec::new() },
            context: self.context,
            vocabulary: self.vocabulary,
            deadline,
            caller: Arc::downgrade(&caller),
        };
        // At worst, where a prompt has no words, all of it is split with each choice.
        if bytes * (1 + choices.len()) <= LONG_PROMPT_BYTES {
            return preparation.run(&request);
        }
        let turn = self.preparations.clone().acquire_owned().await;
        let prepare = move || {
            // Held until the work ends, which is after a caller leaves.
            let _turn = turn;
            preparation.run(&request)
        };
        let prepared = tokio::task::spawn_blocking(prepare).await;
        drop(caller);
        prepared.unwrap_or_else(|_| Err("splitting the prompt into tokens failed".to_owned().into()))
    }
}

impl Drop for LanguageModel {
    fn drop(&mut self) {
        self.shared.inbox.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(model = self.shared.name, "the model's thread had ended with a panic");
        }
    }
}

/// Closes the inbox when the model's thread ends, however it does: callers are told, and do not
/// wait for nobody.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.inbox.close();
    }
}
