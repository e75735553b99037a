//! `infer check`: loads everything as `serve` would, hashes every file, runs the self-tests, and
//! prints the resolved configuration.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context as _;
use infer_config::{Change, Config};
use infer_control::live::self_test;
use infer_control::live::self_test::Tested;
use infer_control::registry::Registry;
use infer_engine::{Card, Format};
use infer_models::weights::Reuse;
use infer_sandbox::World;
use infer_server::serve::tls::Tls;
use infer_server::threads::block_on;
use infer_server::upstream;

use super::admin;
use crate::cli::Check;
use crate::printed::one_line;

pub(super) fn run(mut config: Config, arguments: &Check, out: &mut impl Write) -> anyhow::Result<()> {
    for model in config.models.values_mut().filter(|model| model.reuse == Reuse::All) {
        model.reuse = Reuse::Packed;
    }
    upstream::check(&config)?;
    let registry = Registry::load(config)?;
    let tested = block_on(self_test::run(&registry, None))??;
    if let Some(other) = &arguments.diff {
        let before = match other {
            Some(path) => Registry::load(Config::load(Some(path))?)?.resolved(),
            None => admin::state(&registry.config, &arguments.server)?,
        };
        return changes(&before.changes(&registry.resolved()), out);
    }
    let server = &registry.config.server;
    writeln!(out, "configuration  {}", registry.config.origin)?;
    writeln!(out, "backend        {}", registry.runtime.describe())?;
    listen(&registry.config, out)?;
    writeln!(
        out,
        "requests       deadline {} ms, body up to {} bytes, {} instances, {} waiting",
        server.deadline.as_millis(),
        server.max_body_bytes,
        registry.config.sandbox.instances,
        registry.config.sandbox.waiting
    )?;
    for (name, config) in &registry.config.models {
        let model = registry.models[name].loaded().context("the model was unloaded during the check")?;
        let card = model.card();
        writeln!(out, "\nmodel {name}")?;
        writeln!(out, "  source       {}", config.source)?;
        writeln!(
            out,
            "  card         {} ({}, {})",
            one_line(&card.name),
            card.task,
            one_line(&card.license)
        )?;
        writeln!(out, "  hash         {}", model.hash())?;
        let options = model.capacity();
        writeln!(
            out,
            "  runs         {} sessions × {} threads{}, queue {}",
            options.sessions,
            options.threads,
            options.solo_threads.map(|threads| format!(" and one of {threads}")).unwrap_or_default(),
            options.queue_capacity
        )?;
        match model.unbatched() {
            None if model.card().format == Format::Gguf => {
                writeln!(out, "  batches      up to {} tokens of all requests", options.max_batch)?;
            }
            None => writeln!(out, "  batches      up to {} rows of all requests", options.max_batch)?,
            Some(reason) => writeln!(out, "  batches      none: {reason}")?,
        }
        if let Some(language) = model.language() {
            let context = language.context();
            writeln!(
                out,
                "  context      {context} tokens, keys and values in {} up to {} bytes",
                options.kv_type.name(),
                options.kv_bytes
            )?;
            if language.kv_tokens() < context {
                let needed = (options.kv_bytes / language.kv_tokens()).saturating_mul(context);
                writeln!(
                    out,
                    "  WARNING      `kv_bytes` holds {} tokens, and longer requests are rejected; a whole context needs {needed}",
                    language.kv_tokens()
                )?;
            }
            writeln!(out, "  kernels      {}", language.instruction_set())?;
            match language.packed_file() {
                Some(path) => writeln!(out, "  weights      mapped from {}", path.display())?,
                None => writeln!(out, "  weights      packed in memory")?,
            }
        }
        if model.is_dummy() {
            writeln!(out, "  DUMMY        random weights: answers are meaningless")?;
        }
    }
    for (name, config) in &registry.config.components {
        let loaded = &registry.components[name];
        let limits = loaded.component.limits();
        writeln!(out, "\ncomponent {name}")?;
        writeln!(out, "  source       {}", config.source)?;
        writeln!(out, "  hash         {}", loaded.hash)?;
        match &loaded.route {
            Some(route) => writeln!(out, "  route        POST {route} ({})", loaded.component.world())?,
            None => writeln!(out, "  route        none ({})", loaded.component.world())?,
        }
        for (alias, model) in loaded.component.models() {
            writeln!(out, "  model        {alias} = {}", model.name())?;
        }
        if loaded.component.world() == World::Moderator {
            for (alias, model) in loaded.component.models() {
                categories(alias, model.card(), &config.settings, out)?;
            }
        }
        writeln!(
            out,
            "  limits       memory {} bytes, tensors {} bytes, guest {} ms, compute {} ms, {} handles",
            limits.memory_bytes,
            limits.tensor_bytes,
            limits.guest_time.as_millis(),
            limits.compute_time.as_millis(),
            limits.handles
        )?;
    }
    upstreams(&registry.config, out)?;
    let Tested { models, components } = tested;
    writeln!(out, "\nself-tests     {models} of models, {components} of components passed")?;
    writeln!(out, "\nthe configuration is valid")?;
    Ok(())
}

/// Prints the upstreams, without connecting to them.
fn upstreams(config: &Config, out: &mut impl Write) -> std::io::Result<()> {
    for (name, config) in &config.upstreams {
        writeln!(out, "\nupstream {name}")?;
        writeln!(out, "  url          {}", config.url)?;
        match &config.key_source {
            Some(source) => writeln!(out, "  key          from {source}")?,
            None => writeln!(out, "  key          none")?,
        }
        for (here, there) in &config.models {
            writeln!(out, "  model        {} = {}", one_line(here), one_line(there))?;
        }
        let private = if config.permits_private() { "permitted" } else { "rejected" };
        writeln!(out, "  addresses    loopback and private ones are {private}")?;
        writeln!(
            out,
            "  limits       {} connections, connect {} ms, first byte {} ms, idle {} ms",
            config.connections,
            config.times.connect.as_millis(),
            config.times.first_byte.as_millis(),
            config.times.idle.as_millis()
        )?;
    }
    Ok(())
}

/// Prints the labels of a classifier that map to no category, and the categories that are only
/// proposed. The operator may map labels in `settings`.
fn categories(
    alias: &str,
    card: &Card,
    settings: &BTreeMap<String, String>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let chosen = settings.iter().filter_map(|(key, rule)| Some((key.strip_prefix("category.")?, rule)));
    let chosen: Vec<_> = chosen.collect();
    let is_mapped = |label: &str| {
        let mut words = chosen.iter().flat_map(|(_, rule)| rule.split([':', '(', ',', ')']));
        words.any(|word| word.trim() == label)
    };
    let unused: Vec<_> = card.unused_labels().into_iter().filter(|label| !is_mapped(label)).collect();
    if !unused.is_empty() {
        let list = unused.join(", ");
        writeln!(out, "  unmapped     {alias}: labels without a category: {}", one_line(&list))?;
    }
    let proposed = card
        .categories
        .iter()
        .filter(|(name, category)| category.proposed && !chosen.iter().any(|(chosen, _)| chosen == name));
    let proposed: Vec<_> = proposed.map(|(name, _)| name.as_str()).collect();
    if !proposed.is_empty() {
        writeln!(
            out,
            "  proposed     {alias}: {}; confirm them in the card, or map them in the settings",
            one_line(&proposed.join(", "))
        )?;
    }
    Ok(())
}

/// Prints the changes that a reload would make.
fn changes(changes: &[Change], out: &mut impl Write) -> anyhow::Result<()> {
    for change in changes {
        let fixed = if change.is_fixed() { "  (needs a restart)" } else { "" };
        writeln!(out, "{change}{fixed}")?;
    }
    match changes.iter().filter(|change| change.is_fixed()).count() {
        _ if changes.is_empty() => writeln!(out, "nothing would change")?,
        0 => writeln!(out, "\nthe configuration is valid and needs no restart")?,
        fixed => writeln!(
            out,
            "\nthe configuration is valid; {fixed} changed keys need a restart, so a reload is rejected"
        )?,
    }
    Ok(())
}

/// Prints the listeners and the access rules.
fn listen(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let server = &config.server;
    let scheme = match &server.tls {
        Some(files) => {
            Tls::load(files.clone())?;
            "https"
        }
        None => "http",
    };
    writeln!(out, "listen         {scheme}://{}", server.listen)?;
    if let Some(path) = &server.unix_socket {
        writeln!(out, "socket         {}", path.display())?;
    }
    if let Some(admin) = server.admin_listen {
        writeln!(out, "admin          http://{admin}")?;
    }
    match (config.keys.len(), server.trusted_network) {
        (0, true) => writeln!(out, "keys           none: all clients are permitted (`trusted_network`)")?,
        (0, false) => writeln!(out, "keys           none: only clients on this machine are permitted")?,
        (keys, _) => writeln!(out, "keys           {keys}")?,
    }
    Ok(())
}
