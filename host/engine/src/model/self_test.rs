//! Asking a model what its card says that it answers.

use std::time::Instant;

use super::error::RunError;
use super::loaded::Model;
use crate::card::{SelfTest, TestInput};

/// A model that does not answer what its card says.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// It answers something else.
    #[error("model `{model}`: self-test {test}: {message}")]
    Differs {
        /// The model's name in the configuration.
        model: String,
        /// Which of the card's tests, from 0.
        test: usize,
        /// What was expected and found.
        message: String,
    },
    /// It does not answer.
    #[error("model `{model}`: self-test {test}: {source}")]
    Run {
        /// The model's name in the configuration.
        model: String,
        /// Which of the card's tests, from 0.
        test: usize,
        /// Why.
        source: RunError,
    },
}

impl Model {
    /// Ask what the card's tests ask, one after the other; how many there are.
    ///
    /// # Errors
    ///
    /// The first that is not answered as expected, or not by `deadline`.
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
            let found = found.ok_or_else(|| differs(format!("there is no output `{name}`")))?;
            let compared = expected.compare(found, test.tolerance);
            compared.map_err(|message| differs(format!("output `{name}`: {message}")))?;
        }
        Ok(())
    }
}
