"""Make gemma.gguf and gemma.json: a small vocabulary of Gemma's form, with golden ids and chats.

    pip install sentencepiece==0.2.3 gguf==0.19.0 jinja2==3.1.6
    gemma.py ../../../../../LICENSE

The vocabulary is trained here, because Gemma's own is not free to share: SentencePiece's BPE with
byte tokens, without a space at the beginning of a text, with line ends, runs of spaces and HTML's
tags as symbols, all listed as in files of Gemma 3. SentencePiece makes the ids, and Jinja2 renders
the chats. Texts and messages are those of golden.json.
"""

import io
import json
import pathlib
import re
import sys

import gguf
import jinja2.sandbox
import sentencepiece

HERE = pathlib.Path(__file__).parent
SIZE = 1_200
CONTROL = ["<start_of_turn>", "<end_of_turn>"]
SYMBOLS = ["\n" * count for count in range(1, 6)] + ["▁" * count for count in range(2, 9)] + ["\t", "\t\t"]
SYMBOLS += [f"<{slash}{tag}>" for tag in ("table", "td", "h1", "b", "s", "code", "a") for slash in ("", "/")]
NORMAL, UNKNOWN, USER, BYTE = 1, 2, 4, 6

# In the form of Gemma's template: a system turn becomes part of the user's first turn.
TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set opening = messages[0]['content'] + '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set opening = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Turns must alternate between user and assistant') }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' + (opening if loop.first else '') }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {{ raise_exception('Content must be a string') }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\n' }}
{%- endif -%}
"""


def train(texts):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=SIZE,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        user_defined_symbols=SYMBOLS,
        control_symbols=CONTROL,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        eos_piece="<eos>",
        bos_piece="<bos>",
        num_threads=1,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def write(model, path):
    tokens, types, scores = [], [], []
    for id in range(model.get_piece_size()):
        text, score, kind = model.id_to_piece(id), model.get_score(id), NORMAL
        if model.is_control(id) or model.is_unknown(id):
            kind, score = 3, -1000.0
        elif model.is_byte(id):
            kind = BYTE
        elif text in SYMBOLS:
            # The converter writes their spaces as such.
            text, kind, score = text.replace("▁", " "), USER, -1000.0
        tokens.append(text)
        types.append(kind)
        scores.append(score)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_scores(scores)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def encode_chat(model, text):
    ids = []
    for part in re.split("(<bos>|" + "|".join(CONTROL) + ")", text):
        ids += [model.piece_to_id(part)] if part in ["<bos>", *CONTROL] else model.encode(part)
    return ids


def chat(model, messages):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE)
    turns = [dict(role=role, content=content) for role, content in messages]
    continued = turns[-1]["role"] == "assistant"
    if continued:
        # Ends after the last content, without an end of turn.
        turns[-1]["content"] += "\ue000"
    text = template.render(messages=turns, add_generation_prompt=not continued, bos_token="<bos>")
    text = text.split("\ue000")[0]
    return dict(messages=messages, text=text, ids=encode_chat(model, text))


def main():
    (licence,) = sys.argv[1:]
    golden = json.loads((HERE / "golden.json").read_text())["phi-3"]
    texts = [entry["text"] for entry in golden["texts"]]
    model = train(pathlib.Path(licence).read_text().split("\n") + texts * 2)
    write(model, HERE / "gemma.gguf")
    result = dict(
        texts=[dict(text=text, ids=model.encode(text)) for text in texts],
        chats=[chat(model, entry["messages"]) for entry in golden["chats"]],
    )
    (HERE / "gemma.json").write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(model.get_piece_size(), "pieces", len(texts), "texts", len(result["chats"]), "chats")


main()
