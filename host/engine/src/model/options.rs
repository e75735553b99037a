//! Limits of a model: sessions, threads, queue, batches and memory.

use std::thread::available_parallelism;

use infer_kernels::KvType;

use super::error::LoadError;
use crate::card::Format;

/// Limits that a configuration may set. Each one that is `None` has the default of the model's
/// format.
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
    /// See [`Capacity::kv_type`].
    pub kv_type: Option<KvType>,
    /// See [`Capacity::prefix_cache_bytes`].
    pub prefix_cache_bytes: Option<usize>,
}

/// Limits of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Maximum number of concurrent calls. An ONNX model has one worker thread per session. The
    /// sessions of a language model are computed together; a component without a session in flight
    /// may start one more, up to twice the limit in total.
    pub sessions: usize,
    /// Number of threads of one computation.
    pub threads: usize,
    /// Number of threads of a further session of an ONNX model, if there is one. It computes a
    /// single job while no other session computes.
    pub solo_threads: Option<usize>,
    /// Maximum number of queued jobs; further jobs are rejected.
    pub queue_capacity: usize,
    /// Maximum batch size: rows of axis 0 (a single job may have up to 128), or tokens of a
    /// language model.
    pub max_batch: usize,
    /// Maximum number of tokens of one session, prompt and answer together; limited by the context
    /// of the model.
    pub context_tokens: usize,
    /// Maximum bytes of keys and values, including cached prefixes.
    pub kv_bytes: usize,
    /// Type of keys and values.
    pub kv_type: KvType,
    /// Maximum bytes of pinned prefixes on disk; 0 stores none.
    pub prefix_cache_bytes: usize,
}

impl Capacity {
    /// Threads of each session of an ONNX model; that for a single job, if any, is last.
    pub(crate) fn session_threads(&self) -> Vec<usize> {
        let mut threads = vec![self.threads; self.sessions];
        threads.extend(self.solo_threads);
        threads
    }

    /// Defaults of `format`.
    ///
    /// ONNX models: one session per core with one thread each, one more with a thread per core for
    /// a single job, and batches of 8 rows. Language models: 16 sessions on all cores, passes of
    /// 128 tokens, 4,096 tokens per session, and 384 MiB of keys and values, enough for 1,024
    /// tokens of Phi-3 Mini or 14,000 of Qwen2.5 1.5B. Both: 64 queued jobs.
    pub fn of(format: Format) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let (sessions, threads, solo_threads, max_batch) = match format {
            Format::Onnx => (cores, 1, (cores > 1).then_some(cores), 8),
            Format::Gguf => (16, cores, None, 128),
        };
        Capacity {
            sessions,
            threads,
            solo_threads,
            queue_capacity: 64,
            max_batch,
            context_tokens: 4_096,
            kv_bytes: 384 << 20,
            kv_type: KvType::F16,
            prefix_cache_bytes: 0,
        }
    }
}

impl ModelOptions {
    /// Combines the options with the defaults of `format`. A model with its own number of sessions
    /// or threads has no session for a single job.
    pub(crate) fn capacity(&self, model: &str, format: Format) -> Result<Capacity, LoadError> {
        let defaults = Capacity::of(format);
        let value = |option, value: Option<usize>, default| match value {
            Some(0) => Err(LoadError::Option { model: model.to_owned(), option }),
            value => Ok(value.unwrap_or(default)),
        };
        Ok(Capacity {
            sessions: value("sessions", self.sessions, defaults.sessions)?,
            threads: value("threads", self.threads, defaults.threads)?,
            solo_threads: match (self.sessions, self.threads) {
                (None, None) => defaults.solo_threads,
                _ => None,
            },
            queue_capacity: value("queue_capacity", self.queue_capacity, defaults.queue_capacity)?,
            max_batch: value("max_batch", self.max_batch, defaults.max_batch)?,
            context_tokens: value("context_tokens", self.context_tokens, defaults.context_tokens)?,
            kv_bytes: value("kv_bytes", self.kv_bytes, defaults.kv_bytes)?,
            kv_type: self.kv_type.unwrap_or(defaults.kv_type),
            prefix_cache_bytes: value(
                "prefix_cache_bytes",
                self.prefix_cache_bytes,
                defaults.prefix_cache_bytes,
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_options_are_rejected() {
        let options = ModelOptions { max_batch: Some(0), ..ModelOptions::default() };
        let error = options.capacity("m", Format::Onnx).unwrap_err();
        assert_eq!(error.to_string(), "model `m`: `max_batch` is 0, expected at least 1");
        let options = ModelOptions { max_batch: Some(3), ..ModelOptions::default() };
        let expected = Capacity { max_batch: 3, ..Capacity::of(Format::Gguf) };
        assert_eq!(options.capacity("m", Format::Gguf).unwrap(), expected);
    }

    #[test]
    fn explicit_sessions_have_no_solo_session() {
        let default = Capacity::of(Format::Onnx);
        let solo = |sessions, threads| {
            let options = ModelOptions { sessions, threads, ..ModelOptions::default() };
            options.capacity("m", Format::Onnx).unwrap().solo_threads
        };
        assert_eq!(solo(None, None), default.solo_threads);
        assert_eq!((solo(Some(2), None), solo(None, Some(1))), (None, None));
    }
}
