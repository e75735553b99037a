//! The format of log lines. The length of every field is limited here, whatever its source.

use std::fmt::{self, Debug, Display};

use infer_engine::text::{MESSAGE_BYTES, QUOTE_BYTES, excerpt, excerpt_of};
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

/// Field with the message of an event.
const MESSAGE: &str = "message";

/// Fields in the text format, each cut to its limit.
pub(super) struct Bounded;

impl<'writer> FormatFields<'writer> for Bounded {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = DefaultVisitor::new(writer, true);
        fields.record(&mut Bound(&mut visitor));
        visitor.finish()
    }
}

/// Visitor that forwards excerpts.
struct Bound<'v>(&'v mut dyn Visit);

/// Maximum length of a field, in bytes.
fn max_bytes(field: &Field) -> usize {
    if field.name() == MESSAGE { MESSAGE_BYTES } else { QUOTE_BYTES }
}

impl Visit for Bound<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.record_f64(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.record_i64(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.record_u64(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.record_bool(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.record_str(field, &excerpt(value, max_bytes(field)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let shown = excerpt_of(format_args!("{value:?}"), max_bytes(field));
        self.0.record_debug(field, &format_args!("{shown}"));
    }
}

/// Lines as JSON objects: time, level, the event's fields, its target, and its spans.
pub(super) struct Json;

/// Writes fields as members of an object, each after a comma.
struct Members<'a, 'writer> {
    writer: &'a mut Writer<'writer>,
    result: fmt::Result,
}

impl Members<'_, '_> {
    /// Writes a member. Names of fields are part of the program and need no escapes.
    fn member(&mut self, field: &Field, value: impl Display) {
        self.result = self.result.and_then(|()| write!(self.writer, r#","{}":{value}"#, field.name()));
    }

    fn text(&mut self, field: &Field, value: impl Into<String>) {
        self.member(field, serde_json::Value::String(value.into()));
    }
}

impl Visit for Members<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no number for infinity and NaN, which become null.
        self.member(field, serde_json::Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format!("{value:?}"));
    }
}

impl<'writer> FormatFields<'writer> for Json {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut members = Members { writer: &mut writer, result: Ok(()) };
        fields.record(&mut Bound(&mut members));
        members.result
    }

    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        // Members begin with a comma, so more of them can be appended.
        self.format_fields(current.as_writer(), fields)
    }
}

impl<S> FormatEvent<S, Json> for Json
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Json>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        writer.write_str(r#"{"timestamp":""#)?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, r#"","level":"{}""#, metadata.level())?;
        let mut members = Members { writer: &mut writer, result: Ok(()) };
        event.record(&mut Bound(&mut members));
        members.result?;
        write!(writer, r#","target":"{}""#, metadata.target())?;
        let spans = || context.event_scope().into_iter().flat_map(Scope::from_root);
        let mut objects = Vec::new();
        for span in spans() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<Json>>().map_or("", |fields| &fields.fields);
            objects.push(format!(r#"{{"name":"{}"{fields}}}"#, span.name()));
        }
        if let Some(current) = objects.last() {
            write!(writer, r#","span":{current},"spans":[{}]"#, objects.join(","))?;
        }
        writer.write_str("}\n")
    }
}
