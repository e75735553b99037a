//! A loaded language model, whose thread answers requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use infer_kernels::{BLOCK_TOKENS, Pool};
use tokio::sync::{mpsc, oneshot};

use super::clock;
use super::config::DecoderConfig;
use super::decoder::{Decoder, Packing};
use super::format::Formats;
use super::gguf::{DUMMY, Gguf, GgufError};
use super::inbox::{Inbox, PushError};
use super::job::Job;
use super::kv::KvPool;
use super::preparation::{Preparation, PrepareError, Prepared};
use super::request::{Answer, Message, Output, Piece, Prompt, Request, TemplateArguments};
use super::saved::SavedPrefixes;
use super::scheduler::{Scheduler, Shared};
use super::session::Session;
use super::tensors;
use super::tokenizer::{ChatOptions, Tokenizer, TokenizerError};
use crate::model::{Capacity, Counters, LoadError, Reply, RunError, Stats};
use crate::offload::Offload;
use crate::tensor::Tensor;
use crate::weights::{Bytes, PackedSlot};

/// Maximum bytes of a prompt for each token of the context. A longer prompt is rejected before it
/// is tokenized.
const PROMPT_BYTES_PER_TOKEN: usize = 32;

/// Prompts above this many bytes are tokenized off the caller's thread, because it takes
/// milliseconds.
const LONG_PROMPT_BYTES: usize = 4096;

/// Name of this engine in errors.
const ENGINE: &str = "the language engine";

/// A loaded language model. Dropping it stops its thread, and waits for the pass in progress.
pub struct LanguageModel {
    pub(super) shared: Arc<Shared>,
    pub(super) context: usize,
    pub(super) vocabulary: usize,
    dummy: bool,
    /// Permits for long prompts that are tokenized at once: one for each core.
    preparations: Offload,
    packed_file: Option<PathBuf>,
    thread: Option<JoinHandle<()>>,
}

impl LanguageModel {
    /// Loads the model in the GGUF files `files`. Its packed matrices are cached in `slot`, if
    /// there is one, for later starts.
    pub(crate) fn load(
        name: &str,
        files: Vec<Bytes>,
        slot: Option<PackedSlot>,
        capacity: &Capacity,
    ) -> Result<Self, LoadError> {
        let rejected = |error: GgufError| LoadError::Backend {
            model: name.to_owned(),
            backend: ENGINE,
            message: error.to_string(),
        };
        let thread = |source| LoadError::Thread { model: name.to_owned(), source };
        let gguf = Gguf::parse_parts(files).map_err(rejected)?;
        let dummy = gguf.bool(DUMMY).map_err(rejected)?.unwrap_or(false);
        let tokenizer = Tokenizer::from_gguf(&gguf).map_err(|error| LoadError::Backend {
            model: name.to_owned(),
            backend: ENGINE,
            message: error.to_string(),
        })?;
        let mut config = DecoderConfig::read(&gguf, capacity.context_tokens).map_err(rejected)?;
        config.attention.kv_type = capacity.kv_type;
        let vocabulary = tokenizer.vocabulary_size();
        let saved = SavedPrefixes::open(name, slot.as_ref(), capacity, &config).map_err(thread)?;
        let packing = Packing { pool: Pool::new(capacity.threads).map_err(thread)?, slot };
        let decoder = Decoder::load(gguf, config, vocabulary, packing).map_err(rejected)?;
        let config = decoder.config();
        let pool = KvPool::new(config.layers, config.attention.layer_bytes(), capacity.kv_bytes);
        if pool.capacity() == 0 {
            let message = format!(
                "`kv_bytes` is {}, but a block of {BLOCK_TOKENS} tokens takes {}",
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
                "`kv_bytes` is smaller than a full context; longer requests are rejected"
            );
        }
        tracing::debug!(model = name, weight_bytes = decoder.weight_bytes(), context, dummy, "loaded");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            inbox: Inbox::new(capacity.queue_capacity),
            counters: Counters::default(),
            tokenizer,
            formats: Formats::default(),
            pool,
            sessions: capacity.sessions,
            max_batch: capacity.max_batch,
        });
        let own = shared.clone();
        let builder = std::thread::Builder::new().name(name.replace('\0', " "));
        let serve = move || {
            let shared = CloseOnDrop(own);
            Scheduler::new(&shared.0, decoder).with_saved(saved).serve();
        };
        let started = builder.spawn(serve).map_err(thread)?;
        let (preparations, thread) = (Offload::new(), Some(started));
        Ok(LanguageModel { shared, context, vocabulary, dummy, preparations, packed_file, thread })
    }

    /// Answers `request` in `session`. `stream` receives the text as it is generated.
    ///
    /// Dropping the future cancels the request after the current pass. Needs a tokio runtime with a
    /// timer.
    ///
    /// # Errors
    ///
    /// If the request is malformed or longer than the context, if the queue is full, or at
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
        let Prepared { session_tokens, prompt, declared, pin, work } = match prepared.await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(PrepareError::Invalid(message))) => {
                return Err(RunError::InvalidInput { model: model(), message });
            }
            Ok(Err(PrepareError::Expired)) | Err(_) => return Err(RunError::Deadline { model: model() }),
        };
        let (reply, answer) = oneshot::channel();
        let owner = session.owner.clone();
        let job = Job { owner, prompt: prompt.into(), declared, pin, work, stream, queued, deadline, reply };
        let needed = job.blocks();
        if needed > self.shared.pool.capacity() {
            let message = format!(
                "the request needs up to {needed} key-value blocks, but `kv_bytes` holds {}; request fewer \
                 tokens, or raise `kv_bytes`",
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
        session.tokens = session_tokens;
        if let Output::Text { tokens, .. } = &answer.output {
            session.tokens.extend_from_slice(tokens);
        }
        Ok(answer)
    }

    /// Like [`LanguageModel::run`], with the request and the answer as tensors.
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

    /// True if the file declares that its weights are random.
    pub fn is_dummy(&self) -> bool {
        self.dummy
    }

    /// Maximum tokens of a session.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Capacity of the key-value cache in tokens, for all sessions and cached prefixes together.
    pub fn kv_tokens(&self) -> usize {
        self.shared.pool.capacity() * BLOCK_TOKENS
    }

    /// Tokens of [`Self::kv_tokens`] that are in use, by requests in flight and by cached prefixes.
    pub fn kv_tokens_used(&self) -> usize {
        self.shared.pool.used() * BLOCK_TOKENS
    }

    /// True while the model's thread runs. It ends early only if the engine fails; until then,
    /// every call is answered.
    pub fn is_serving(&self) -> bool {
        !self.shared.inbox.is_closed()
    }

    /// The file that the packed weights are mapped from, or `None` if they are in this process's
    /// memory.
    pub fn packed_file(&self) -> Option<&Path> {
        self.packed_file.as_deref()
    }

    /// Size of the vocabulary. Token ids of a prompt must be below it.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The ids of `text`. Control tokens in it are treated as text.
    ///
    /// # Errors
    ///
    /// If the text exceeds the limit of the tokenizer.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, RunError> {
        self.shared.tokenizer.encode(text).map_err(|error| self.rejected(&error))
    }

    /// The ids of `messages`, formatted by the file's chat template, with the beginning of the
    /// assistant's turn.
    ///
    /// # Errors
    ///
    /// If the file has no template, or the template rejects the messages or the arguments.
    pub(crate) fn chat_tokens(
        &self,
        messages: &[Message],
        arguments: &TemplateArguments,
    ) -> Result<Vec<u32>, RunError> {
        let options = ChatOptions { continue_last: false, arguments, now: clock::unix_seconds() };
        let tokenizer = &self.shared.tokenizer;
        let tokens = tokenizer.open_chat(messages, options).and_then(|open| tokenizer.whole(open));
        tokens.map_err(|error| self.rejected(&error))
    }

    /// The beginning of `text` with at most `max_tokens` tokens, and the number of tokens of the
    /// whole text, at least `max_tokens` if it is longer.
    ///
    /// # Errors
    ///
    /// If the text exceeds the limit of the tokenizer, or the deadline passes.
    pub(crate) async fn beginning(
        &self,
        text: &str,
        max_tokens: usize,
        deadline: Instant,
    ) -> Result<(String, usize), RunError> {
        let (shared, text) = (self.shared.clone(), text.to_owned());
        let is_long = text.len() > LONG_PROMPT_BYTES;
        let cut = move || {
            let count = |text: &str| shared.tokenizer.encode(text).map(|tokens| tokens.len());
            let whole = count(&text)?;
            let (mut end, mut found) = (text.len(), whole);
            // After the deadline no caller waits for the result.
            while found > max_tokens && Instant::now() < deadline {
                // Shorter by the surplus, and by one byte at least.
                end = text.floor_char_boundary((end * max_tokens / found).min(end.saturating_sub(1)));
                found = count(&text[..end])?;
            }
            Ok((text[..end].to_owned(), whole))
        };
        let model = || self.shared.name.clone();
        let result = if is_long {
            let run = tokio::time::timeout_at(deadline.into(), self.preparations.run(cut)).await;
            let run = run.map_err(|_| RunError::Deadline { model: model() })?;
            run.map_err(|_| RunError::Closed { model: model() })?
        } else {
            cut()
        };
        result.map_err(|error| self.rejected(&error))
    }

    /// The error of a text that cannot be tokenized.
    fn rejected(&self, error: &TokenizerError) -> RunError {
        RunError::InvalidInput { model: self.shared.name.clone(), message: error.to_string() }
    }

    /// The instruction set that the kernels use on this machine, such as `avx512-vnni`.
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
                // Its caller may have left.
                let _ = displaced.reply.send(Err(busy()));
                Ok(())
            }
            Err(PushError::Full) => Err(busy()),
            Err(PushError::Closed) => Err(RunError::Closed { model: shared.name.clone() }),
        }
    }

    /// Tokenizes the request; on another thread if that takes long.
    async fn prepare(
        &self,
        session: &Session,
        request: Request,
        deadline: Instant,
    ) -> Result<Prepared, PrepareError> {
        request.check()?;
        let bytes = match &request.prompt {
            Prompt::Text(text) => text.len(),
            Prompt::Messages(messages) | Prompt::Question { messages, .. } => {
                messages.iter().map(|permit| permit.content.len() + permit.role.len()).sum()
            }
            Prompt::Tokens(_) => 0,
        };
        let choices = request.choices.as_deref().unwrap_or_default();
        let bytes = bytes + choices.iter().map(String::len).max().unwrap_or(0);
        if bytes > self.context * PROMPT_BYTES_PER_TOKEN {
            let context = self.context;
            return Err(format!(
                "the prompt has {bytes} bytes, far more than fit in a context of {context} tokens"
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
        // In the worst case, a prompt without words, all of it is tokenized with each choice.
        // A format takes milliseconds to prepare.
        if bytes * (1 + choices.len()) <= LONG_PROMPT_BYTES && request.params.format.is_none() {
            return preparation.run(&request);
        }
        let prepared = self.preparations.run(move || preparation.run(&request)).await;
        drop(caller);
        prepared.unwrap_or_else(|_| Err("tokenizing the prompt failed".to_owned().into()))
    }
}

impl Drop for LanguageModel {
    fn drop(&mut self) {
        self.shared.inbox.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(model = self.shared.name, "the model's thread has panicked");
        }
    }
}

/// Closes the inbox when the model's thread ends, even by a panic, so that callers get an error
/// instead of waiting forever.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.inbox.close();
    }
}
