// A moderator in JavaScript. It judges texts with the text models of its configuration, as the Rust
// guest (guest-models/moderate) does, and reports images as gaps. The host tokenizes the texts.

import { report } from 'infer:guest/spans@0.1.0';
import { getAll } from 'wasi:config/store@0.2.0-rc.1';
import { loadByName } from 'wasi:nn/graph@0.2.0-rc-2024-10-28';
import { Tensor } from 'wasi:nn/tensor@0.2.0-rc-2024-10-28';

// OpenAI's categories, in the order of the verdict. They can be flagged even if no card has a
// threshold for them.
const OPENAI = [
  'harassment', 'harassment/threatening', 'hate', 'hate/threatening', 'illicit', 'illicit/violent', 'self-harm',
  'self-harm/instructions', 'self-harm/intent', 'sexual', 'sexual/minors', 'violence', 'violence/graphic',
];
const THRESHOLD = 0.5;

// Kind of the parts that the models of each task judge.
const KINDS = new Map([
  ['text-classification', 'text'],
  ['token-classification', 'text'],
  ['image-classification', 'image'],
]);

// Combinations of the scores of labels into one, in f32 as in every guest.
const RULES = new Map([
  ['max', (scores) => Math.max(...scores)],
  ['min', (scores) => Math.min(...scores)],
  ['sum', (scores) => scores.reduce((one, other) => Math.min(Math.fround(one + other), 1))],
  ['not', ([score]) => Math.fround(1 - score)],
]);

// Numbers in the syntax of settings, as in every guest.
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

export const moderation = {
  moderate(input) {
    if (input.length === 0) {
      throw fault('invalid-input', 'input: expected at least one part, found none');
    }
    const settings = new Map(getAll());
    const parts = input.map(({ tag, val }, part) => ({ part, tag, val }));
    const texts = parts.filter(({ tag }) => tag === 'text');
    const hasImage = texts.length < parts.length;
    const classifiers = configured(settings);
    const assignments = names(settings, classifiers).map((name) => assignment(settings, classifiers, name));
    const judgements = texts.length > 0 ? judged(classifiers, assignments, texts) : new Map();
    return verdict(assignments, judgements, {
      unread: classifiers.some(({ kind }) => kind === 'text') ? 'no text model judges it' : 'no text model is configured',
      hasText: texts.length > 0,
      hasImage,
    });
  },
};

// The configured classifiers, in the order of their names.
function configured(settings) {
  const models = [...settings.keys()].flatMap((key) => /^models\.([^.]+)\.task$/.exec(key)?.[1] ?? []).sort();
  const all = models.map((model) => {
    const task = settings.get(`models.${model}.task`);
    const labels = settings.get(`models.${model}.labels`);
    return { model, task, kind: KINDS.get(task), labels: labels ? labels.split('\n') : [] };
  });
  const classifiers = all.filter(({ kind }) => kind !== undefined);
  return classifiers.map((classifier) => ({ ...classifier, categories: categories(settings, classifier.model) }));
}

// The categories of a model's card by name: { rule, labels, threshold }.
function categories(settings, model) {
  try {
    const facts = Object.entries(JSON.parse(settings.get(`models.${model}.categories`) ?? '{}'));
    return new Map(facts.map(([name, { rule, labels, threshold }]) => {
      if (!isRule(rule, labels)) {
        throw new Error('expected a rule with labels');
      }
      return [name, { rule, labels, threshold: threshold === undefined ? undefined : Math.fround(threshold) }];
    }));
  } catch (error) {
    throw fault('internal', `model \`${model}\`: the fact \`categories\` is malformed: ${error.message}`);
  }
}

function isRule(rule, labels) {
  return RULES.has(rule) && labels.length > 0 && (rule !== 'not' || labels.length === 1);
}

// OpenAI's categories, then those of the cards, then those of the settings.
function names(settings, classifiers) {
  const ofCards = classifiers.flatMap(({ categories }) => [...categories.keys()]);
  const ofSettings = [...settings.keys()].sort().flatMap((key) => /^category\.(.*)$/s.exec(key)?.[1] ?? []);
  return [...new Set([...OPENAI, ...ofCards, ...ofSettings])];
}

// Assigns a category to the classifier that judges it in texts: { name, threshold, judge }. Those
// for images count as well, so that one configuration is valid for every guest.
function assignment(settings, classifiers, name) {
  const choice = choose(settings, name);
  const unfit = (problem) => fault('internal', `setting \`category.${name}\`: ${problem}`);
  const quoted = (all) => `\`${all.join('`, `')}\``;
  const isChosen = ({ model }) => model === choice.model;
  if (choice.model !== undefined && !classifiers.some(isChosen)) {
    throw unfit(`no classifier \`${choice.model}\`, expected one of ${quoted(classifiers.map(({ model }) => model))}`);
  }
  const missing = ({ labels }) => choice.rule.labels.find((label) => !labels.includes(label));
  const isByRule = choice.rule !== undefined && choice.model === undefined;
  const judgeOf = (kind) => {
    const candidates = classifiers.filter((classifier) => classifier.kind === kind);
    const fits = (classifier) => (isByRule ? missing(classifier) === undefined : classifier.categories.has(name));
    const classifier = candidates.find(isChosen) ?? candidates.find(fits);
    if (classifier === undefined) {
      return undefined;
    }
    const own = classifier.categories.get(name);
    if (choice.rule === undefined || (choice.model !== undefined && !isChosen(classifier))) {
      if (own === undefined) {
        throw unfit(`the card of model \`${classifier.model}\` does not judge it; add a rule`);
      }
      return { ...own, classifier };
    }
    const label = missing(classifier);
    if (label !== undefined) {
      throw unfit(`model \`${classifier.model}\` has no label \`${label}\`, expected one of ${quoted(classifier.labels)}`);
    }
    return { ...choice.rule, threshold: own?.threshold, classifier };
  };
  const [text, image] = [judgeOf('text'), judgeOf('image')];
  if (choice.rule !== undefined && text === undefined && image === undefined) {
    throw unfit('no classifier has the labels of its rule');
  }
  const usual = text?.threshold ?? image?.threshold ?? (OPENAI.includes(name) ? THRESHOLD : undefined);
  return { name, threshold: number(settings, `threshold.${name}`, usual), judge: text };
}

// The operator's choice for a category: { model, rule }, each undefined if it is not chosen.
function choose(settings, name) {
  const key = `category.${name}`;
  const text = settings.get(key);
  if (text === undefined) {
    return {};
  }
  const colon = text.indexOf(':');
  const hasRule = colon >= 0 || text.includes('(');
  const model = colon >= 0 ? text.slice(0, colon).trim() : hasRule ? undefined : text.trim();
  const rule = hasRule ? parseRule(text.slice(colon + 1)) : undefined;
  if (model === '' || (hasRule && rule === undefined)) {
    const expected = 'a model, a rule such as `max(toxic, insult)`, or `MODEL: RULE`; rules are max, min, sum, not';
    throw fault('internal', `setting \`${key}\`: expected ${expected}, found \`${text}\``);
  }
  return { model, rule };
}

// Parses `max(toxic, insult)`; undefined if it is malformed.
function parseRule(text) {
  const [, name, list] = /^([^(]*)\(([^]*)\)$/.exec(text.trim()) ?? [];
  const labels = list?.split(',').map((label) => label.trim()).filter((label) => label !== '');
  const rule = name?.trim();
  return rule !== undefined && isRule(rule, labels) ? { rule, labels } : undefined;
}

// Runs the classifiers of texts that judge a category, and those that label spans. Returns the
// judgements by classifier.
function judged(classifiers, assignments, texts) {
  const judges = new Set(assignments.map(({ judge }) => judge?.classifier));
  const isUsed = (classifier) => judges.has(classifier) || classifier.task === 'token-classification';
  const used = classifiers.filter((classifier) => classifier.kind === 'text' && isUsed(classifier));
  return new Map(used.map((classifier) => [classifier, judge(classifier, texts)]));
}

// Judges all texts in one run. Returns a row of scores for each text, and the reason if one was
// read in part: { rows, gap }.
function judge({ model, task, labels }, texts) {
  const outputs = run(model, texts.map(({ val }) => val));
  const scores = outputs.numbers('scores', [texts.length, labels.length]);
  const { tokens, truncated } = outputs.json('metadata');
  if (task === 'token-classification') {
    const found = outputs.json('spans').map((spans, index) => spans.map((span) => ({ ...span, part: texts[index].part })));
    report(found.flat());
  }
  const cut = truncated.indexOf(true);
  return {
    rows: texts.map((_, row) => scores.subarray(row * labels.length, (row + 1) * labels.length)),
    gap: cut < 0 ? undefined : `part ${texts[cut].part + 1}: model \`${model}\` read the beginning of ${tokens[cut]} tokens`,
  };
}

// Runs a text model. Returns readers of its outputs.
function run(model, texts) {
  const unusable = (message) => fault('model', { model, message });
  const tensors = compute(model, new TextEncoder().encode(JSON.stringify(texts)), unusable);
  const bytes = (name, type, shape) => {
    const tensor = tensors.get(name);
    if (tensor === undefined) {
      throw unusable(`no output \`${name}\`; outputs: ${[...tensors.keys()].join(', ')}`);
    }
    const found = { type: tensor.ty(), shape: [...tensor.dimensions()] };
    if (found.type !== type || (shape !== undefined && `${found.shape}` !== `${shape}`)) {
      const expected = shape === undefined ? type : `${type} of shape [${shape}]`;
      throw unusable(`output \`${name}\`: expected ${expected}, found ${found.type} of shape [${found.shape}]`);
    }
    return tensor.data();
  };
  return {
    // f32 values of a shape, row-major.
    numbers(name, shape) {
      const numbers = new Float32Array(bytes(name, 'FP32', shape).slice().buffer);
      // A NaN is below every threshold and would pass as harmless.
      if (!numbers.every(Number.isFinite)) {
        throw unusable(`output \`${name}\` contains values that are not finite`);
      }
      return numbers;
    },
    json(name) {
      const text = new TextDecoder().decode(bytes(name, 'U8'));
      try {
        return JSON.parse(text);
      } catch (error) {
        throw unusable(`output \`${name}\`: ${error.message}`);
      }
    },
  };
}

function compute(model, texts, unusable) {
  try {
    const context = loadByName(model).initExecutionContext();
    return new Map(context.compute([['texts', new Tensor(new Uint32Array([texts.length]), 'U8', texts)]]));
  } catch (error) {
    const refused = error?.payload ?? error;
    throw unusable(typeof refused?.data === 'function' ? refused.data() : String(error));
  }
}

// The verdict: the score of the worst text for each category, or the reasons of its gaps. A
// category beyond OpenAI's that is only reported has no gaps.
function verdict(assignments, judgements, { unread, hasText, hasImage }) {
  const verdict = { flagged: false, scores: [], gaps: [] };
  for (const { name: category, threshold, judge } of assignments) {
    const judgement = judgements.get(judge?.classifier);
    const score = judgement && worst(judge, judgement.rows);
    const reasons = [];
    if (hasText && score === undefined) {
      reasons.push(unread);
    }
    if (hasImage) {
      reasons.push('this guest judges no images');
    }
    if (judgement?.gap !== undefined) {
      reasons.push(judgement.gap);
    }
    if (score !== undefined) {
      const flagged = threshold !== undefined && score >= threshold;
      verdict.flagged ||= flagged;
      verdict.scores.push({ category, score, flagged, applied: { text: true, image: false }, tier: 'classifier' });
    }
    if (reasons.length > 0 && threshold !== undefined) {
      const isPartial = judgement?.gap !== undefined;
      const unjudged = { text: hasText && (score === undefined || isPartial), image: hasImage };
      verdict.gaps.push({ category, unjudged, reason: reasons.join('; ') });
    }
  }
  return verdict;
}

// The largest score of a row by the rule.
function worst({ rule, labels, classifier }, rows) {
  const columns = labels.map((label) => classifier.labels.indexOf(label)).filter((column) => column >= 0);
  if (columns.length === 0 || (rule === 'min' && columns.length < labels.length)) {
    return undefined;
  }
  return Math.max(...rows.map((row) => RULES.get(rule)(columns.map((column) => row[column]))));
}

// A numeric setting, rounded to f32.
function number(settings, key, usual) {
  const text = settings.get(key);
  if (text === undefined) {
    return usual;
  }
  const value = Math.fround(Number(text));
  if (!NUMBER.test(text) || !Number.isFinite(value)) {
    throw fault('internal', `setting \`${key}\`: expected a finite number, found \`${text}\``);
  }
  return value;
}

// An error of the interface; the JavaScript tools read it from `payload`.
function fault(tag, val) {
  return Object.assign(new Error(typeof val === 'string' ? val : val.message), { payload: { tag, val } });
}
