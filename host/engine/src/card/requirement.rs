//! Python requirements of the form `name==version`, with a name by PEP 508 and a version by PEP
//! 440. Extras, markers, wildcards, paths and URLs are rejected.

use crate::limits::MAX_REQUIREMENT_BYTES;

/// A Python package in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Name, normalised by PEP 503, with `_` between its words as in names of wheels.
    name: String,
    version: Version,
}

/// A normalised version: equal values denote the same version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    epoch: String,
    /// Release numbers without trailing zeros.
    release: Vec<String>,
    /// `a`, `b` or `rc`, with its number.
    pre: Option<(&'static str, String)>,
    post: Option<String>,
    dev: Option<String>,
    local: Vec<String>,
}

impl Requirement {
    /// Parses `name==version`.
    ///
    /// # Errors
    ///
    /// A message about the part that violates its specification.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected `name==version`";
        if text.len() > MAX_REQUIREMENT_BYTES {
            return Err(format!("is longer than {MAX_REQUIREMENT_BYTES} bytes, {expected}"));
        }
        let (name, version) = text.split_once("==").ok_or_else(|| expected.to_owned())?;
        let name = normalised(name).ok_or_else(|| {
            format!(
                "{expected}: a name of letters, digits and `-_.` that begins and ends with a letter or digit"
            )
        })?;
        let version = Version::parse(version)
            .ok_or_else(|| format!("{expected}: a version as PEP 440 writes it, such as `1.0.post2`"))?;
        Ok(Requirement { name, version })
    }

    /// Checks whether `file` is the name of a wheel of this package in this version, according to
    /// the specification of binary distributions.
    pub fn is_wheel(&self, file: &str) -> bool {
        let Some(stem) = file.strip_suffix(".whl") else { return false };
        let parts: Vec<_> = stem.split('-').collect();
        let is_tag = |tag: &&str| {
            !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
        };
        match parts.as_slice() {
            [name, version, build @ .., _, _, _] if build.len() <= 1 => {
                let build_is_number =
                    build.first().is_none_or(|build| build.starts_with(|digit: char| digit.is_ascii_digit()));
                // The name of a wheel has `_` where a local version may have `-`.
                normalised(name).as_ref() == Some(&self.name)
                    && Version::parse(version).as_ref() == Some(&self.version)
                    && build_is_number
                    && parts[2..].iter().all(is_tag)
            }
            _ => false,
        }
    }
}

/// Normalises a name by PEP 508; `None` if it is invalid.
fn normalised(name: &str) -> Option<String> {
    let (first, last) = (name.bytes().next()?, name.bytes().next_back()?);
    if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() {
        return None;
    }
    let mut normalised = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'-' | b'_' | b'.' if normalised.ends_with('_') => {}
            b'-' | b'_' | b'.' => normalised.push('_'),
            _ if byte.is_ascii_alphanumeric() => normalised.push(byte.to_ascii_lowercase() as char),
            _ => return None,
        }
    }
    Some(normalised)
}

impl Version {
    /// Parses a version by the pattern in appendix B of PEP 440, without surrounding spaces.
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (public, local) = match text.split_once('+') {
            Some((public, local)) => (public, Some(local)),
            None => (text.as_str(), None),
        };
        let mut rest = Rest(public.strip_prefix('v').unwrap_or(public));
        let mut first = rest.number()?;
        let mut epoch = "0".to_owned();
        if rest.take("!") {
            epoch = first;
            first = rest.number()?;
        }
        let mut release = vec![first];
        while let Some(number) = rest.after_dot() {
            release.push(number);
        }
        while release.len() > 1 && release.last().is_some_and(|last| last == "0") {
            release.pop();
        }
        let pre = rest.labelled(&[
            ("alpha", "a"),
            ("a", "a"),
            ("beta", "b"),
            ("b", "b"),
            ("preview", "rc"),
            ("pre", "rc"),
            ("rc", "rc"),
            ("c", "rc"),
        ]);
        let post = rest
            .implicit_post()
            .or_else(|| rest.labelled(&[("post", ""), ("rev", ""), ("r", "")]).map(|(_, number)| number));
        let dev = rest.labelled(&[("dev", "")]).map(|(_, number)| number);
        if !rest.0.is_empty() {
            return None;
        }
        let local = local.map_or(Some(Vec::new()), segments)?;
        Some(Version { epoch, release, pre, post, dev, local })
    }
}

/// Splits a local version into its segments.
fn segments(local: &str) -> Option<Vec<String>> {
    local
        .split(['-', '_', '.'])
        .map(|segment| {
            let is_plain = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let is_number = segment.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| if is_number { without_zeros(segment) } else { segment.to_owned() })
        })
        .collect()
}

/// Unparsed rest of a version, in lower case.
struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn take(&mut self, prefix: &str) -> bool {
        let rest = self.0.strip_prefix(prefix);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn separator(&mut self) {
        self.0 = self.0.strip_prefix(['-', '_', '.']).unwrap_or(self.0);
    }

    fn number(&mut self) -> Option<String> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        (!digits.is_empty()).then(|| without_zeros(digits))
    }

    /// Parses an optional dot and number.
    fn after_dot(&mut self) -> Option<String> {
        let before = self.0;
        let number = self.take(".").then(|| self.number()).flatten();
        if number.is_none() {
            self.0 = before;
        }
        number
    }

    /// Parses an optional `-1`, which means `.post1`.
    fn implicit_post(&mut self) -> Option<String> {
        let before = self.0;
        let number = self.take("-").then(|| self.number()).flatten();
        if number.is_none() {
            self.0 = before;
        }
        number
    }

    /// Parses one of the labels, with optional separators around it and an optional number after
    /// it.
    fn labelled(&mut self, labels: &[(&str, &'static str)]) -> Option<(&'static str, String)> {
        let before = self.0;
        self.separator();
        for (label, meaning) in labels {
            if self.take(label) {
                let after_label = self.0;
                self.separator();
                let number = self.number();
                if number.is_none() {
                    // The separator belongs to the next part, if there is one.
                    self.0 = after_label;
                }
                return Some((meaning, number.unwrap_or_else(|| "0".to_owned())));
            }
        }
        self.0 = before;
        None
    }
}

fn without_zeros(digits: &str) -> String {
    let stripped = digits.trim_start_matches('0');
    if stripped.is_empty() { "0".to_owned() } else { stripped.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_follow_pep_grammar() {
        let good = [
            "a==1",
            "A.b-c_d==1.0",
            "x1==1!2.0",
            "x==1.0a1",
            "x==1.0.rc2",
            "x==1.0-1",
            "x==1.0.post2.dev3",
            "x==v1.0",
            "x==1.0+local.7",
            "x==1.0a",
            "x==1.0-alpha_1",
            "x==1.0a.dev1",
            "x==2020.01.01",
        ];
        for text in good {
            assert!(Requirement::parse(text).is_ok(), "{text}");
        }
        let bad = [
            "x",
            "x=1",
            "x==",
            "==1",
            "x==1.tar.gz",
            "x==1.0.whl",
            "x==1.*",
            "x===1",
            "x==1.0;os_name=='nt'",
            "x[extra]==1.0",
            "x==1.0 ",
            " x==1.0",
            "x ==1.0",
            "x==1.0,>2",
            "x @ https://a/b==1",
            "./x==1",
            "../x==1",
            "/x==1",
            "-x==1",
            "--index-url==1",
            "x-==1",
            ".x==1",
            "x==-1",
            "x==1..0",
            "x==1.0+",
            "x==1.0+a..b",
            "x==1.0\n--pre",
            "x==1.0/../y",
            "http://a/x==1",
            "x==a",
            "x==1.zip",
            "é==1",
            "x==1.0é",
            "x==1.0#egg",
            "x==1.0a.",
            "x==1!",
            "x==!1",
            "x==1.0post.",
            "x==1-",
            "x\0==1",
        ];
        for text in bad {
            assert!(Requirement::parse(text).is_err(), "{text}");
        }
        assert!(Requirement::parse(&format!("x=={}", "1".repeat(200))).is_err());
    }

    #[test]
    fn wheel_of_another_version_is_rejected() {
        let requirement = Requirement::parse("Tiny.Model-part1==1.0").unwrap();
        let cases = [
            ("tiny_model_part1-1.0-py3-none-any.whl", true),
            ("Tiny.Model_part1-1.0.0-py3-none-any.whl", true),
            ("tiny_model_part1-1.0-2build-py3-none-manylinux_2_17_x86_64.whl", true),
            ("tiny_model_part1-1.0.1-py3-none-any.whl", false),
            ("tiny_model_part2-1.0-py3-none-any.whl", false),
            ("tiny_model-part1-1.0-py3-none-any.whl", false),
            ("tiny_model_part1-1.0-py3-none.whl", false),
            ("tiny_model_part1-1.0-x-py3-none-any.whl", false),
            ("tiny_model_part1-1.0.tar.gz", false),
            ("tiny_model_part1-1.0-py3-none-any.zip", false),
            ("tiny_model_part1-1.0-py3-none-/any.whl", false),
        ];
        for (file, expected) in cases {
            assert_eq!(requirement.is_wheel(file), expected, "{file}");
        }
        let equal =
            [("1.0rc1", "1.0c1"), ("1.0-1", "1.0.post1"), ("1.0", "1"), ("0!1.00", "1"), ("1+A.01", "1+a-1")];
        for (one, other) in equal {
            assert_eq!(Version::parse(one), Version::parse(other), "{one} {other}");
        }
        for (one, other) in
            [("1.0", "1.0.dev0"), ("1.0a1", "1.0b1"), ("1.0", "1.0+x"), ("1!1.0", "1.0"), ("1.1", "1.10")]
        {
            assert_ne!(Version::parse(one), Version::parse(other), "{one} {other}");
        }
    }
}
