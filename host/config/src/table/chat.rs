//! The keys of `[chat]` and of guards.

use crate::key::{DefaultValue, Entry, Key, Kind, Reload, Values, presence, section, types};

section! {
    /// `[chat]`
    #[derive(Default)]
    Chat, ChatValues {
        /// Moderators of all chats whose model or upstream has no guard of its own.
        guard: Table<Guard> = Unset, Live;
    }
}

section! {
    /// `[chat.guard]`, `[models.NAME.guard]` and `[upstreams.NAME.guard]`
    Guard, GuardValues {
        /// The moderator that judges new turns before the model reads them.
        input: Text = Unset, Live;
        /// The moderator that judges answers before the client reads them.
        output: Text = Unset, Live;
        /// Judges system prompts, too. They come from the application, so they are trusted by
        /// default.
        judge_system: Boolean = Flag(false), Live;
        /// Tokens that must follow a text of an answer, and be judged with it, before it is sent.
        hold_back_tokens: Count(1..=4_096) = Number(32), Live;
        /// New tokens after which an answer is judged again.
        stride_tokens: Count(1..=4_096) = Number(8), Live;
        /// Last tokens of an answer that are judged together, at least `hold_back_tokens` and
        /// `stride_tokens`. More are judged together while the moderator is slower than the model.
        window_tokens: Count(2..=65_536) = Number(128), Live;
        /// `block`: the refusal replaces an answer, and ends one that is streamed. `stop`: an
        /// answer ends before the flagged text. `redact`: `redaction` replaces the flagged text.
        /// `annotate`: everything is sent, at once, and the categories beside it. For input, `stop`
        /// is `block`.
        on_flag: Text = Text("block"), Live;
        /// If a moderator fails: with `block` the request does, with `allow` the text is sent.
        on_error: Text = Text("block"), Live;
        /// Response to blocked input: `answer` with the refusal and `finish_reason`
        /// `content_filter`, or `error`: 400, `content_policy_violation`.
        blocked_input: Text = Text("answer"), Live;
        /// The answer to a request that is blocked.
        refusal: Text = Text("I cannot help with that."), Live;
        /// Text in the place of flagged text.
        redaction: Text = Text("[redacted]"), Live;
        /// Categories that count. By default all that the moderator judges, but `prompt-injection`
        /// only in the results of tools, where it always counts.
        categories: List = Derived("all"), Live;
        /// `{ category = score }`: scores from which categories are flagged, instead of the
        /// moderator's own thresholds.
        thresholds: Map<types::Real> = Unset, Live;
    }
}
