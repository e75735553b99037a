//! Self-tests of a card, run on the model.

use std::time::Instant;

use super::error::RunError;
use super::loaded::Model;
use crate::card::{SelfTest, TestInput};

/// A self-test of the card failed.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The output differs from the expected one.
    #[error("model `{model}`: self-test {test}: {message}")]
    Differs {
        /// Name of the model in the configuration.
        model: String,
        /// Index of the test in the card, from 0.
        test: usize,
        /// Expected and found values.
        message: String,
    },
    /// The run failed.
    #[error("model `{model}`: self-test {test}: {source}")]
    Run {
        /// Name of the model in the configuration.
        model: String,
        /// Index of the test in the card, from 0.
        test: usize,
        /// Error of the run.
        source: RunError,
    },
}

impl Model {
    /// Runs the tests of the card one after the other and returns their number.
    ///
    /// # Errors
    ///
    /// For the first test that fails or misses `deadline`.
    pub async fn self_test(&self, deadline: Instant) -> Result<usize, SelfTestError> {
        for (index, test) in self.card().tests.iter().enumerate() {
            self.one_test(index, test, deadline).await?;
        }
        Ok(self.card().tests.len())
    }

    async fn one_test(&self, index: usize, test: &SelfTest, deadline: Instant) -> Result<(), SelfTestError> {
        let model = || self.name().to_owned();
        let differs = |message| SelfTestError::Differs { model: model(), test: index, message };
        let spec = |name: &str| self.card().inputs.iter().find(|input| input.name == name);
        let tensor =
            |(name, input): (&String, &TestInput)| Ok((name.clone(), input.tensor(name, spec(name))?));
        let inputs = test.inputs.iter().map(tensor).collect::<Result<_, String>>().map_err(differs)?;
        let reply = self.run(inputs, deadline).await;
        let reply = reply.map_err(|source| SelfTestError::Run { model: model(), test: index, source })?;
        for (name, expected) in &test.outputs {
            let found = reply.outputs.iter().find(|(found, _)| found == name).map(|(_, tensor)| tensor);
            let found = found.ok_or_else(|| differs(format!("output `{name}` does not exist")))?;
            let compared = expected.compare(found, test.tolerance);
            compared.map_err(|message| differs(format!("output `{name}`: {message}")))?;
        }
        Ok(())
    }
}
