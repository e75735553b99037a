"""Small tokenizers of each kind, trained on the sentences of corpus.py.

`tokenizers` trains byte-level BPE and WordLevel. `sentencepiece` trains the Unigram ones, and
transformers converts them, so that their tokenizer.json has the same parts as the published ones of
XLM-RoBERTa and DeBERTa-v2: a compiled table of normalization rules, `Metaspace`, scores.
"""

import io
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import sentencepiece
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

import corpus

SENTENCES = 3_000
MAX_TOKENS = 128
BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def _sentences() -> list[str]:
    return corpus.sentences(SENTENCES)


def _bert_template(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )


def _pieces(tokenizer: Tokenizer, size: int) -> dict[str, int]:
    """Returns a vocabulary of `size` pieces: all characters, and what saves the most of them.

    WordPieceTrainer makes another one in each run.
    """
    words = Counter()
    for sentence in _sentences():
        normal = tokenizer.normalizer.normalize_str(sentence)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    characters, saved = set(), Counter()
    for word, count in words.items():
        characters |= {character for letter in word for character in (letter, f"##{letter}")}
        for length in range(2, len(word) + 1):
            saved[word[:length]] += count * (length - 1)
        for start in range(1, len(word) - 1):
            saved[f"##{word[start:]}"] += count * (len(word) - start - 1)
    best = sorted(saved, key=lambda piece: (-saved[piece], piece))
    pieces = BERT_TOKENS + sorted(characters) + best
    return {piece: index for index, piece in enumerate(pieces[:size])}


def _wordpiece(size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.model = models.WordPiece(
        _pieces(tokenizer, size), unk_token="[UNK]", max_input_chars_per_word=100
    )
    tokenizer.post_processor = _bert_template(tokenizer)
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def distilbert() -> transformers.PreTrainedTokenizerFast:
    """WordPiece, lower case."""
    return transformers.DistilBertTokenizerFast(
        tokenizer_object=_wordpiece(600, True), do_lower_case=True, model_max_length=MAX_TOKENS
    )


def bert_uncased() -> transformers.PreTrainedTokenizerFast:
    """WordPiece, lower case, with types of tokens."""
    return transformers.BertTokenizerFast(
        tokenizer_object=_wordpiece(700, True), do_lower_case=True, model_max_length=MAX_TOKENS
    )


def bert_cased() -> transformers.PreTrainedTokenizerFast:
    """WordPiece in the case of the text, as models for names have it."""
    return transformers.BertTokenizerFast(
        tokenizer_object=_wordpiece(700, False), do_lower_case=False, model_max_length=MAX_TOKENS
    )


def minilm() -> transformers.PreTrainedTokenizerFast:
    """WordPiece whose file fixes truncation and padding, as all-MiniLM-L6-v2's does."""
    tokenizer = _wordpiece(600, True)
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(length=MAX_TOKENS, pad_id=0, pad_token="[PAD]")
    return transformers.BertTokenizerFast(
        tokenizer_object=tokenizer, do_lower_case=True, model_max_length=MAX_TOKENS
    )


def _byte_level(size: int, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def roberta() -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE with RoBERTa's control tokens."""
    tokenizer = _byte_level(700, ROBERTA_TOKENS)
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=("</s>", 2), cls=("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return transformers.RobertaTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS
    )


def modernbert() -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE with BERT's control tokens, after NFC."""
    tokenizer = _byte_level(900, ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = _bert_template(tokenizer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
        **{f"{name.strip('[]').lower()}_token": name for name in BERT_TOKENS},
    )


def wordlevel() -> transformers.PreTrainedTokenizerFast:
    """Whole words, lower case; others are unknown."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    trainer = trainers.WordLevelTrainer(
        vocab_size=600, special_tokens=BERT_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    tokenizer.post_processor = _bert_template(tokenizer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        **{f"{name.strip('[]').lower()}_token": name for name in BERT_TOKENS},
    )


def _rules() -> str:
    """Returns NFKC rules for the characters that the test texts use.

    The complete table of sentencepiece takes 240 KB.
    """
    ranges = [
        (0xA0, 0x180),
        (0x2000, 0x2030),
        (0x2100, 0x2200),
        (0x3000, 0x3001),
        (0xFB00, 0xFB07),
        (0xFF01, 0xFFF0),
    ]
    lines = []
    for start, end in ranges:
        for code in range(start, end):
            folded = unicodedata.normalize("NFKC", chr(code))
            if folded != chr(code):
                lines.append(f"{code:X}\t{' '.join(f'{ord(part):X}' for part in folded)}")
    # Blanks of other kinds become spaces, and controls vanish, as in nmt_nfkc.
    lines += [f"{code:X}\t20" for code in (0x09, 0x0A, 0x0D, 0x2028, 0x2029)]
    lines += [f"{code:X}\t" for code in (0x01, 0x07, 0x7F, 0xAD, 0x200B, 0xFEFF)]
    return "\n".join(lines) + "\n"


def _unigram(folder: Path, size: int, **options) -> Path:
    """Trains a sentencepiece model in `folder` and returns its path."""
    rules, output = folder / "rules.tsv", folder / "spiece.model"
    rules.write_text(_rules())
    with open(output, "wb") as file:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_sentences()),
            model_writer=model,
            vocab_size=size,
            model_type="unigram",
            character_coverage=1.0,
            normalization_rule_tsv=str(rules),
            num_threads=1,
            minloglevel=2,
            **options,
        )
        file.write(model.getvalue())
    return output


def xlm_roberta() -> transformers.PreTrainedTokenizerFast:
    """Unigram with `Metaspace` and RoBERTa's control tokens."""
    with tempfile.TemporaryDirectory() as folder:
        path = _unigram(Path(folder), 850)
        return transformers.XLMRobertaTokenizerFast(
            vocab_file=str(path), model_max_length=MAX_TOKENS
        )


def deberta_v2() -> transformers.PreTrainedTokenizerFast:
    """Unigram as DeBERTa-v2 has it: BERT's control tokens, punctuation kept with its word."""
    with tempfile.TemporaryDirectory() as folder:
        path = _unigram(
            Path(folder),
            850,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            pad_piece="[PAD]",
            bos_piece="[CLS]",
            eos_piece="[SEP]",
            unk_piece="[UNK]",
        )
        return transformers.DebertaV2TokenizerFast(
            vocab_file=str(path),
            do_lower_case=False,
            split_by_punct=False,
            model_max_length=MAX_TOKENS,
        )
