//! Language models: GGUF files, run by a decoder of our own for many sessions at once.
//!
//! # Layout
//!
//! - `gguf`, `tokenizer`, `template`: what a file holds, checked
//! - `config`, `decoder`: the graph, and one pass through it
//! - `kv`, `prefix`: keys and values in shared blocks, and finding them again
//! - `request`, `tensors`: what is asked, and how `wasi:nn` carries it
//! - `inbox`, `scheduler`, `task`, `sampler`: from a request to its answer, together with all others

mod config;
mod decoder;
pub(crate) mod gguf;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod inbox;
mod kv;
mod prefix;
mod request;
mod sampler;
mod scheduler;
mod task;
mod template;
mod tensors;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use infer_kernels::{BLOCK_TOKENS, Pool};
use tokio::sync::{mpsc, oneshot};

use crate::model::{Capacity, Counters, LoadError, Reply, RunError, Stats};
use crate::tensor::Tensor;
use crate::weights::bytes::Bytes;
use config::DecoderConfig;
use decoder::Decoder;
use gguf::{Gguf, GgufError};
use inbox::{Inbox, Job, Refused, Work};
use kv::KvPool;
pub use request::{Answer, Finish, Message, Output, Params, Prompt, Request, TokenUsage};
use scheduler::{Scheduler, Shared};
use tokenizer::Tokenizer;

/// A prompt of more bytes than this for each token of the context is refused before it is split into tokens.
const PROMPT_BYTES_PER_TOKEN: usize = 32;

/// Prompts above this many bytes are split into tokens off the caller's thread: it takes milliseconds.
const LONG_PROMPT_BYTES: usize = 4096;

/// What errors call this engine.
const ENGINE: &str = "the language engine";

/// The metadata key by which a file says that its weights are random.
pub(crate) const DUMMY: &str = "infer.dummy";

/// A loaded language model. Dropping it stops its thread, and waits for the pass that it computes.
pub struct LanguageModel {
    shared: Arc<Shared>,
    context: usize,
    vocabulary: usize,
    dummy: bool,
    thread: Option<JoinHandle<()>>,
}

/// What one caller has said so far. Its keys and values are not held: they are found among the prefixes, or computed again.
#[derive(Clone, Debug)]
pub struct Session {
    component: Arc<str>,
    tokens: Vec<u32>,
}

impl Session {
    /// A session of `component`: prefixes are shared within a component and never between two.
    pub fn new(component: &Arc<str>) -> Self {
        Session { component: component.clone(), tokens: Vec::new() }
    }
}

impl Default for Session {
    /// A session of the host's own.
    fn default() -> Self {
        Session::new(&Arc::from(""))
    }
}

impl LanguageModel {
    pub(crate) fn load(name: &str, bytes: Bytes, capacity: &Capacity) -> Result<Self, LoadError> {
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
        let workers = Pool::new(capacity.threads).map_err(thread)?;
        let decoder = Decoder::load(gguf, config, vocabulary, workers).map_err(refused)?;
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
        Ok(LanguageModel { shared, context, vocabulary, dummy, thread: Some(started) })
    }

    /// Answer `request` in `session`. `stream` receives text as it is generated.
    ///
    /// Dropping the future withdraws the request between two passes. Needs a tokio runtime with a timer.
    ///
    /// # Errors
    ///
    /// When the request is malformed or longer than the context, when the queue is full, or at `deadline`.
    pub async fn run(
        &self,
        session: &mut Session,
        request: Request,
        stream: Option<mpsc::UnboundedSender<String>>,
        deadline: Instant,
    ) -> Result<Answer, RunError> {
        let model = || self.shared.name.clone();
        let queued = Instant::now();
        if queued >= deadline {
            return Err(RunError::Deadline { model: model() });
        }
        let prepared = self.prepare(session, request).await;
        let (prompt, pinned, work) =
            prepared.map_err(|message| RunError::InvalidInput { model: model(), message })?;
        let (reply, answer) = oneshot::channel();
        let component = session.component.clone();
        let job = Job { component, prompt: prompt.clone(), pinned, work, stream, queued, deadline, reply };
        let needed = task::blocks(&job);
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
        session.tokens = prompt;
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
    async fn prepare(&self, session: &Session, request: Request) -> Result<(Vec<u32>, usize, Work), String> {
        request.check()?;
        let bytes = match &request.prompt {
            Prompt::Text(text) => text.len(),
            Prompt::Messages(messages) => {
                messages.iter().map(|turn| turn.content.len() + turn.role.len()).sum()
            }
            Prompt::Tokens(_) => 0,
        };
        let bytes = bytes + request.choices.iter().flatten().map(String::len).max().unwrap_or(0);
        if bytes > self.context * PROMPT_BYTES_PER_TOKEN {
            return Err(format!(
                "the prompt has {bytes} bytes, far above the {} tokens of the context",
                self.context
            ));
        }
        let preparation = Preparation {
            shared: self.shared.clone(),
            before: if request.params.continues { session.tokens.clone() } else { Vec::new() },
            context: self.context,
            vocabulary: self.vocabulary,
        };
        if bytes <= LONG_PROMPT_BYTES {
            return preparation.run(request);
        }
        let prepared = tokio::task::spawn_blocking(move || preparation.run(request)).await;
        prepared.unwrap_or_else(|_| Err("splitting the prompt into tokens failed".to_owned()))
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

/// Closes the inbox when the model's thread ends, however it does: callers are told, and do not wait for nobody.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.inbox.close();
    }
}

/// What turns a request into tokens.
struct Preparation {
    shared: Arc<Shared>,
    /// The session's tokens, which text and tokens come after.
    before: Vec<u32>,
    context: usize,
    vocabulary: usize,
}

impl Preparation {
    fn run(&self, mut request: Request) -> Result<(Vec<u32>, usize, Work), String> {
        let choices = request.choices.take();
        let mut prompt = self.encode(&request, "")?;
        let work = match choices {
            Some(choices) => {
                let whole = choices
                    .iter()
                    .map(|choice| self.encode(&request, choice))
                    .collect::<Result<Vec<_>, _>>()?;
                // A choice's first letters may belong to the same token as the prompt's last.
                let shared = whole.iter().map(|tokens| common(tokens, &prompt)).min().unwrap_or(0);
                prompt.truncate(shared);
                Work::Score(self.branches(&choices, &whole, shared)?)
            }
            None => {
                let room = self.context.saturating_sub(prompt.len()).max(1);
                let max_tokens = request.params.max_tokens.min(room);
                Work::Generate(Params { max_tokens, ..request.params.clone() })
            }
        };
        if prompt.is_empty() {
            return Err("the prompt has no tokens".to_owned());
        }
        if prompt.len() >= self.context {
            let (tokens, context) = (prompt.len(), self.context);
            return Err(format!(
                "the prompt has {tokens} tokens, expected fewer than the {context} of the context"
            ));
        }
        let pinned = if request.params.pin { self.pinned(&request, &prompt)? } else { 0 };
        Ok((prompt, pinned, work))
    }

    fn branches(
        &self,
        choices: &[String],
        whole: &[Vec<u32>],
        shared: usize,
    ) -> Result<Vec<Vec<u32>>, String> {
        let branch = |(choice, tokens): (&String, &Vec<u32>)| match tokens[shared..].len() {
            0 => Err(format!("choice `{}` adds no token to the prompt", choice.escape_debug())),
            own if own > request::MOST_CHOICE_TOKENS => {
                let most = request::MOST_CHOICE_TOKENS;
                Err(format!("a choice has {own} tokens, expected at most {most}"))
            }
            own if shared + own > self.context => {
                Err(format!("prompt and choice have {} tokens, the context {}", shared + own, self.context))
            }
            _ => Ok(tokens[shared..].to_vec()),
        };
        choices.iter().zip(whole).map(branch).collect()
    }

    /// The tokens of the prompt with `choice` after it.
    fn encode(&self, request: &Request, choice: &str) -> Result<Vec<u32>, String> {
        let tokenizer = &self.shared.tokenizer;
        let mut tokens = self.before.clone();
        let encode = |text: &str, continues: bool| {
            let encoded =
                if continues { tokenizer.encode_continuation(text) } else { tokenizer.encode(text) };
            encoded.map_err(|error| error.to_string())
        };
        match &request.prompt {
            Prompt::Messages(messages) => return self.chat(messages, request.params.continues, choice),
            Prompt::Text(text) => {
                let continues = !tokens.is_empty();
                if !continues {
                    tokens.extend(tokenizer.bos());
                }
                tokens.extend(encode(&format!("{text}{choice}"), continues)?);
            }
            Prompt::Tokens(ids) => {
                if let Some(unknown) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
                    return Err(format!(
                        "`tokens`: {unknown} is not below the vocabulary's {}",
                        self.vocabulary
                    ));
                }
                tokens.extend(ids);
                if !choice.is_empty() {
                    tokens.extend(encode(choice, true)?);
                }
            }
        }
        Ok(tokens)
    }

    fn chat(&self, messages: &[Message], continues: bool, choice: &str) -> Result<Vec<u32>, String> {
        let mut messages = messages.to_vec();
        let open = continues || !choice.is_empty();
        match messages.last_mut() {
            None => return Err("`messages` is empty, expected at least one turn".to_owned()),
            Some(last) if continues => last.content.push_str(choice),
            Some(_) if !choice.is_empty() => {
                messages.push(Message { role: "assistant".to_owned(), content: choice.to_owned() });
            }
            Some(_) => {}
        }
        self.shared.tokenizer.encode_chat(&messages, open).map_err(|error| error.to_string())
    }

    /// How many of the prompt's first tokens belong to the messages that are its prefix.
    fn pinned(&self, request: &Request, prompt: &[u32]) -> Result<usize, String> {
        let (Some(first), Prompt::Messages(messages)) = (request.params.prefix_messages, &request.prompt)
        else {
            return Ok(prompt.len());
        };
        let prefix = self.chat(&messages[..first.clamp(1, messages.len())], false, "")?;
        Ok(common(&prefix, prompt))
    }
}

fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
