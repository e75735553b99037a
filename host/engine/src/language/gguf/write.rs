//! A writer of small GGUF files for tests, including malformed ones.

/// A GGUF file under construction. Nothing is validated, so that a test can write malformed files.
#[derive(Clone, Default)]
pub(crate) struct Writer {
    keys: Vec<(String, Vec<u8>)>,
    tensors: Vec<RawTensor>,
}

/// A tensor's entry as the file stores it, and its data.
#[derive(Clone)]
pub(crate) struct RawTensor {
    pub(crate) name: String,
    /// Columns first, as in the file.
    pub(crate) dimensions: Vec<u64>,
    pub(crate) code: u32,
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(architecture: &str) -> Self {
        Writer::default().text("general.architecture", architecture)
    }

    /// Sets a key, with the value's type and bytes as the file stores them.
    pub(crate) fn raw(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.keys.retain(|(known, _)| known != key);
        let value = [&kind.to_le_bytes(), bytes].concat();
        self.keys.push((key.to_owned(), value));
        self
    }

    /// Repeats the key.
    pub(crate) fn duplicate(mut self, key: &str) -> Self {
        let again = self.keys.iter().find(|(known, _)| known == key).cloned();
        self.keys.extend(again);
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(known, _)| known != key);
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> Self {
        self.raw(key, 7, &[value.into()])
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, 8, &prefixed(value))
    }

    pub(crate) fn texts<T: AsRef<str>>(self, key: &str, values: &[T]) -> Self {
        self.array(key, 8, values, |value| prefixed(value.as_ref()))
    }

    pub(crate) fn f32s(self, key: &str, values: &[f32]) -> Self {
        self.array(key, 6, values, |value| value.to_le_bytes().to_vec())
    }

    pub(crate) fn i32s(self, key: &str, values: &[i32]) -> Self {
        self.array(key, 5, values, |value| value.to_le_bytes().to_vec())
    }

    pub(crate) fn bools(self, key: &str, values: &[bool]) -> Self {
        self.array(key, 7, values, |&value| vec![value.into()])
    }

    fn array<T>(self, key: &str, kind: u32, values: &[T], bytes: impl Fn(&T) -> Vec<u8>) -> Self {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|element| value.extend(bytes(element)));
        self.raw(key, 9, &value)
    }

    /// Adds a tensor of `shape`, rows first, after the others.
    pub(crate) fn tensor(mut self, name: &str, shape: &[u64], code: u32, data: Vec<u8>) -> Self {
        let end = self.tensors.last().map_or(0, |last| last.offset + last.data.len() as u64);
        let offset = end.next_multiple_of(32);
        let dimensions = shape.iter().rev().copied().collect();
        self.tensors.push(RawTensor { name: name.to_owned(), dimensions, code, offset, data });
        self
    }

    /// Modifies the last tensor's entry.
    pub(crate) fn last(mut self, change: impl FnOnce(&mut RawTensor)) -> Self {
        self.tensors.last_mut().map(change);
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            file.extend(prefixed(key));
            file.extend(value);
        }
        for tensor in &self.tensors {
            file.extend(prefixed(&tensor.name));
            file.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|dimension| file.extend(dimension.to_le_bytes()));
            file.extend(tensor.code.to_le_bytes());
            file.extend(tensor.offset.to_le_bytes());
        }
        let start = file.len().next_multiple_of(32);
        for tensor in &self.tensors {
            // An offset beyond the size of a test file is written to the entry only.
            if let Some(begin) = start.checked_add(tensor.offset as usize).filter(|begin| *begin < 1 << 24) {
                file.resize(begin.max(file.len()), 0);
                file.truncate(begin);
                file.extend(&tensor.data);
            }
        }
        file
    }
}

fn prefixed(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
