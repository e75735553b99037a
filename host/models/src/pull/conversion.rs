//! Makes the model's file from what is fetched.

use std::io::{BufWriter, Write as _};

use anyhow::{Context as _, anyhow};
use infer_engine::{CardFile, Conversion};

use super::growth::Growth;
use super::transfer::{self, Fetched, Pull};
use crate::convert::{Answer, Settings, convert};

/// Name of the result in the scratch folder.
const CONVERTED: &str = "converted";

impl Pull<'_> {
    /// Converts `fetched` to `file` in the scratch folder, and verifies the result.
    ///
    /// # Errors
    ///
    /// If it cannot be converted, or the result is not the file of the card.
    pub(super) fn convert(
        &self,
        conversion: &Conversion,
        fetched: &Fetched,
        file: &CardFile,
    ) -> anyhow::Result<Fetched> {
        let bar = transfer::bar(&file.path, self.file.bytes);
        bar.set_message("converting");
        let Conversion { attention_heads, layer_norm_eps, .. } = *conversion;
        let settings = Settings { attention_heads, layer_norm_eps };
        let converted = convert(&fetched.file, settings, Answer::Sentence, |read| bar.set_position(read));
        let converted = converted.with_context(|| format!("cannot convert `{}`", self.file.path))?;
        let path = self.scratch.join(CONVERTED);
        let context = || format!("cannot write `{}`", path.display());
        let place = self.scratch.open_or_create(CONVERTED, 0o600).with_context(context)?;
        let mut out = BufWriter::new(Growth::new(place, 0, converted.bytes()).with_context(context)?);
        converted.write(&mut out).and_then(|()| out.flush()).with_context(context)?;
        drop(converted);
        let growth = out.into_inner().map_err(|error| anyhow!("{}: {error}", context()))?;
        let opened = growth.into_file();
        file.verify_opened(&path, &opened).map_err(|error| {
            anyhow!("{error}; the card is for another version of this program, which converts differently")
        })?;
        opened.sync_all().context("cannot write to the disk")?;
        bar.finish_and_clear();
        Ok(Fetched { name: CONVERTED.to_owned(), file: opened })
    }
}
