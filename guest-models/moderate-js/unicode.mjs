// What a component's JavaScript engine, which is built without ICU, does not know of Unicode: tables for the program, made by Node.

const UNSEEN = /^(?:\p{Default_Ignorable_Code_Point}|[\ufff9-\ufffb]|(?![\t-\r\u0085])\p{Cc})$/u;
const KINDS = [['unseen', UNSEEN], ['letter', /^\p{L}$/u], ['mark', /^\p{M}$/u], ['digit', /^\p{N}$/u]];

// Where each run of characters of one kind begins, and its kind; characters and their compatibility decompositions. Those of
// Hangul are left out: no word of the vocabulary has one.
export function tables() {
  const starts = [];
  const kinds = [];
  const decomposed = [];
  for (let code = 0; code <= 0x10ffff; code += 1) {
    const isSurrogate = code >= 0xd800 && code <= 0xdfff;
    const character = isSurrogate ? '' : String.fromCodePoint(code);
    const kind = KINDS.find(([, pattern]) => pattern.test(character))?.[0] ?? 'other';
    if (kind !== kinds.at(-1)) {
      starts.push(code);
      kinds.push(kind);
    }
    const parts = character.normalize('NFKD');
    if (parts !== character && !(code >= 0xac00 && code <= 0xd7a3)) {
      decomposed.push([character, parts]);
    }
  }
  return `const STARTS = ${JSON.stringify(starts)};
const KINDS = ${JSON.stringify(kinds)};
const DECOMPOSED = new Map(${JSON.stringify(decomposed)});`;
}

// The words of a vocabulary by their decomposition: composing them is what the engine cannot do.
export function byDecomposition(vocabulary) {
  const words = Object.entries(vocabulary).filter(([word]) => word === word.normalize('NFC'));
  return words.map(([word, id]) => [word.normalize('NFD'), id]);
}
