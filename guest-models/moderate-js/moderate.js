// A moderator in JavaScript. It judges text with the model `text` as the Rust guest does, and
// reports images as gaps.
//
// This module runs when the component is built, and its state becomes part of the component.
// build.mjs prepends VOCABULARY, a `Map` of words to ids, VOCABULARY_SHA256, and the Unicode tables
// that the component's engine lacks (unicode.mjs).

import { getAll } from 'wasi:config/store@0.2.0-rc.1';
import { loadByName } from 'wasi:nn/graph@0.2.0-rc-2024-10-28';
import { Tensor } from 'wasi:nn/tensor@0.2.0-rc-2024-10-28';

const SEPARATORS = /[ !"#$%&()*+,\-./:;<=>?@[\\\]^_`{|}~\t\n\r\v\f]+/;
const SEPARATOR = new RegExp(`^${SEPARATORS.source}`);
const PLAIN = /^[\t-\r -~]*$/;
const APOSTROPHES = /['\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\uff07]/;
const PARTS = /(?=')/;
const LATIN = /[\0-\u036f\u1d00-\u1dbf\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff]/;

// Numbers in the syntax of settings, as in every guest.
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

const MAX_WINDOWS = 64;

// OpenAI's categories with their default thresholds and their rules for the labels of the Jigsaw
// toxic comment challenge.
const CATEGORIES = [
  ['harassment', 0.7, any('toxic', 'severe_toxic', 'insult', 'obscene')],
  ['harassment/threatening', 0.2, any('threat')],
  ['hate', 0.25, any('identity_hate')],
  ['hate/threatening', 0.2, all('identity_hate', 'threat')],
  ...[
    'illicit', 'illicit/violent', 'self-harm', 'self-harm/instructions', 'self-harm/intent', 'sexual', 'sexual/minors', 'violence',
    'violence/graphic',
  ].map((name) => [name, 0.5, () => undefined]),
];

function any(...labels) {
  return (value) => labels.map(value).reduce((max, score) => (max >= score || score === undefined ? max : score), undefined);
}

function all(...labels) {
  return (value) => {
    const scores = labels.map(value);
    return scores.includes(undefined) ? undefined : Math.min(...scores);
  };
}

export const moderation = {
  moderate(input) {
    if (input.length === 0) {
      throw fault('invalid-input', 'input: expected at least one part, found none');
    }
    const settings = new Map(getAll());
    const texts = input.filter(({ tag }) => tag === 'text').map(({ val }) => val);
    const hasImage = texts.length < input.length;
    const judged = texts.length > 0 && settings.has('models.text.task') ? judge(settings, texts) : undefined;
    const verdict = { flagged: false, scores: [], gaps: [] };
    for (const [category, usual, rule] of CATEGORIES) {
      const threshold = Math.fround(number(settings, `threshold.${category}`, usual));
      const score = judged && worst(judged, rule);
      const reasons = [];
      if (texts.length > 0 && score === undefined) {
        reasons.push(judged ? 'no text model judges it' : 'no text model is configured');
      }
      if (hasImage) {
        reasons.push('this guest judges no images');
      }
      if (score !== undefined) {
        const flagged = score >= threshold;
        verdict.flagged ||= flagged;
        verdict.scores.push({ category, score, flagged, applied: { text: true, image: false }, tier: 'classifier' });
      }
      if (reasons.length > 0) {
        const unjudged = { text: texts.length > 0 && score === undefined, image: hasImage };
        verdict.gaps.push({ category, unjudged, reason: reasons.join('; ') });
      }
    }
    return verdict;
  },
};

// Runs the model on windows of the texts. Returns its labels, and a row of scores for each window.
function judge(settings, texts) {
  const card = (key) => settings.get(`models.text.${key}`);
  if (card('input.dtype') !== 'i32' || (card('input.text.pad') ?? 'left') !== 'left') {
    throw fault('internal', `model \`text\`: expected i32 token ids padded on the left, found ${card('input.dtype')} on the ${card('input.text.pad')}`);
  }
  if ((card('input.text.vocabulary.sha256') ?? VOCABULARY_SHA256) !== VOCABULARY_SHA256) {
    throw fault('internal', 'model `text`: its vocabulary is not the one that this guest was built with; build the guest for it');
  }
  const size = atLeastOne(settings, 'models.text.input.text.max_tokens', 100);
  const maxWindows = atLeastOne(settings, 'text.max_windows', MAX_WINDOWS);
  const windows = [];
  for (const text of texts) {
    windows.push(...cut(ids(text), size));
    if (windows.length > maxWindows) {
      throw fault('too-large', `text: more than ${maxWindows} windows of ${size} words; send it in pieces, or raise \`text.max_windows\``);
    }
  }
  const rows = new Int32Array(windows.length * size);
  windows.forEach((window, index) => rows.set(window, (index + 1) * size - window.length));
  const labels = card('labels').split('\n');
  const scores = run(card, rows, windows.length, size);
  if (scores.length !== windows.length * labels.length) {
    throw fault('internal', `model \`text\`: expected ${windows.length * labels.length} scores, found ${scores.length}`);
  }
  return { labels, scores };
}

// Returns the ids of the known words, in order, by the rules of the Rust guest
// (moderate/src/words.rs).
function ids(text) {
  if (PLAIN.test(text)) {
    const whole = (word) => known(word) ?? (word.includes("'") ? readings(word.split(PARTS)) : []);
    return text.toLowerCase().split(SEPARATORS).flatMap(whole);
  }
  return folded(text).split(SEPARATORS).flatMap((word) => readings(word.split('\0')));
}

// Returns the ids of a word of these pieces: those of the whole word, of the word without a
// possessive `'s`, or of the pieces.
function readings(all) {
  const pieces = all.filter((piece) => piece !== '');
  const word = pieces.join('');
  const possessive = () => (/'s$/i.test(word) ? idOf(word.slice(0, -2)) : undefined);
  const whole = idOf(word) ?? possessive();
  const found = whole === undefined && pieces.length > 1 ? pieces.filter((piece) => piece !== "'").map(idOf) : [whole];
  return found.filter((id) => id !== undefined);
}

// Folds the text into compatibility forms, with a blank between words and a NUL where a word may
// split.
function folded(text) {
  const folded = [];
  let latin;
  for (let character of text) {
    let kind = kindOf(character);
    if (kind === 'unseen') {
      folded.push('\0');
      continue;
    }
    if (APOSTROPHES.test(character)) {
      folded.push('\0');
      character = "'";
      kind = 'letter';
    }
    const loose = character > '\x7f' && kind !== 'letter' && kind !== 'mark';
    if (loose) {
      folded.push('\0');
    }
    for (let part of DECOMPOSED.get(character) ?? character) {
      const kind = part > '\x7f' ? kindOf(part) : SEPARATOR.test(part) ? 'other' : 'letter';
      if (kind === 'other') {
        part = ' ';
        latin = undefined;
      } else if (kind !== 'mark') {
        const before = latin;
        latin = LATIN.test(part);
        if (before !== undefined && before !== latin) {
          folded.push('\0');
        }
      }
      folded.push(part);
    }
    if (loose) {
      folded.push('\0');
    }
  }
  return folded.join('');
}

// Returns the id of a word, with or without its marks.
function idOf(word) {
  const lower = word.toLowerCase();
  return known(lower) ?? known([...lower].filter((character) => kindOf(character) !== 'mark').join(''));
}

// Returns the id of a word, with or without the apostrophes around it.
function known(word) {
  return VOCABULARY.get(word) ?? VOCABULARY.get(word.replace(/^'+|'+$/g, ''));
}

// Returns `letter`, `digit`, `mark`, `unseen` or `other`.
function kindOf(character) {
  const code = character.codePointAt(0);
  let [low, high] = [0, STARTS.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    [low, high] = STARTS[middle] <= code ? [middle, high] : [low, middle];
  }
  return KINDS[low];
}

// Cuts windows of at most `size` ids, each half a window after the one before; the last ends with
// the text.
function cut(ids, size) {
  const last = ids.length - size;
  if (last < 0) {
    return [ids];
  }
  const windows = [];
  for (let first = 0; first < last; first += Math.ceil(size / 2)) {
    windows.push(ids.slice(first, first + size));
  }
  windows.push(ids.slice(last));
  return windows;
}

function run(card, rows, count, size) {
  try {
    const context = loadByName('text').initExecutionContext();
    const tensor = new Tensor(new Uint32Array([count, size]), 'I32', new Uint8Array(rows.buffer));
    const outputs = context.compute([[card('input.name'), tensor]]);
    const found = outputs.find(([name]) => name === card('output.name'));
    const data = found[1].data();
    return new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
  } catch (error) {
    const refused = error?.payload ?? error;
    const message = typeof refused?.data === 'function' ? refused.data() : String(error);
    throw fault('model', { model: 'text', message });
  }
}

function worst({ labels, scores }, rule) {
  let worst;
  for (let first = 0; first < scores.length; first += labels.length) {
    const score = rule((label) => {
      const at = labels.indexOf(label);
      return at < 0 ? undefined : scores[first + at];
    });
    worst = worst >= score || score === undefined ? worst : score;
  }
  return worst;
}

function number(settings, key, usual) {
  const text = settings.get(key);
  const value = text === undefined ? usual : Number(text);
  if ((text !== undefined && !NUMBER.test(text)) || !Number.isFinite(value)) {
    throw fault('internal', `setting \`${key}\`: expected a finite number, found \`${text}\``);
  }
  return value;
}

function atLeastOne(settings, key, usual) {
  const text = settings.get(key) ?? String(usual);
  if (!/^\+?\d+$/.test(text) || Number(text) < 1 || Number(text) > 0xffffffff) {
    throw fault('internal', `setting \`${key}\`: expected a whole number from 1 on, found \`${text}\``);
  }
  return Number(text);
}

// An error of the interface; the JavaScript tools read it from `payload`.
function fault(tag, val) {
  return Object.assign(new Error(typeof val === 'string' ? val : val.message), { payload: { tag, val } });
}
