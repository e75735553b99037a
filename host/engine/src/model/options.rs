//! How much of the box a model may use.

use std::thread::available_parallelism;

use super::error::LoadError;
use crate::card::Format;

/// What may be said of how a model is run; what is not said has the default of its format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelOptions {
    /// See [`Capacity::sessions`].
    pub sessions: Option<usize>,
    /// See [`Capacity::threads`].
    pub threads: Option<usize>,
    /// See [`Capacity::queue_capacity`].
    pub queue_capacity: Option<usize>,
    /// See [`Capacity::max_batch`].
    pub max_batch: Option<usize>,
    /// See [`Capacity::context_tokens`].
    pub context_tokens: Option<usize>,
    /// See [`Capacity::kv_bytes`].
    pub kv_bytes: Option<usize>,
}

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// How many calls are computed at once. Each session of an ONNX model is one worker thread;
    /// those of a language model are computed together, and a component that has none under way may
    /// begin one more, up to twice as many in all.
    pub sessions: usize,
    /// Threads that one computation uses.
    pub threads: usize,
    /// How many jobs may wait; one more is refused.
    pub queue_capacity: usize,
    /// How many rows are computed together: rows of axis 0 (a single job may have more, up to 128),
    /// or a language model's tokens.
    pub max_batch: usize,
    /// The most tokens of one session, prompt and answer together; not more than the model was made
    /// for.
    pub context_tokens: usize,
    /// The most memory for keys and values, those of cached prefixes included.
    pub kv_bytes: usize,
}

impl Capacity {
    /// The defaults. ONNX models: as many sessions as the machine has cores, one thread each,
    /// batches of 8 rows. Language models: 16 sessions on all cores, passes of 128 tokens, 4,096
    /// tokens a session, 384 MiB of keys and values, which are 1,024 tokens of Phi-3 Mini or 14,000
    /// of Qwen2.5 1.5B. Both: 64 waiting jobs.
    pub fn of(format: Format) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let (sessions, threads, max_batch) = match format {
            Format::Onnx => (cores, 1, 8),
            Format::Gguf => (16, cores, 128),
        };
        Capacity {
            sessions,
            threads,
            queue_capacity: 64,
            max_batch,
            context_tokens: 4_096,
            kv_bytes: 384 << 20,
        }
    }
}

impl ModelOptions {
    /// What was said, and the defaults of `format` for the rest.
    pub(crate) fn capacity(&self, model: &str, format: Format) -> Result<Capacity, LoadError> {
        let defaults = Capacity::of(format);
        let said = |option, said: Option<usize>, default| match said {
            Some(0) => Err(LoadError::Option { model: model.to_owned(), option }),
            said => Ok(said.unwrap_or(default)),
        };
        Ok(Capacity {
            sessions: said("sessions", self.sessions, defaults.sessions)?,
            threads: said("threads", self.threads, defaults.threads)?,
            queue_capacity: said("queue_capacity", self.queue_capacity, defaults.queue_capacity)?,
            max_batch: said("max_batch", self.max_batch, defaults.max_batch)?,
            context_tokens: said("context_tokens", self.context_tokens, defaults.context_tokens)?,
            kv_bytes: said("kv_bytes", self.kv_bytes, defaults.kv_bytes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_zero_are_refused() {
        let options = ModelOptions { max_batch: Some(0), ..ModelOptions::default() };
        let error = options.capacity("m", Format::Onnx).unwrap_err();
        assert_eq!(error.to_string(), "model `m`: `max_batch` is 0, expected at least 1");
        let options = ModelOptions { max_batch: Some(3), ..ModelOptions::default() };
        let expected = Capacity { max_batch: 3, ..Capacity::of(Format::Gguf) };
        assert_eq!(options.capacity("m", Format::Gguf).unwrap(), expected);
    }
}
