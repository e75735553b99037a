"""OpenAI's Python client against a real server: `chat.py http://127.0.0.1:8080 MODEL`."""

import sys

import openai

QUESTION = [{"role": "user", "content": "Name a colour."}]


def main(url: str, model: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    common = {"model": model, "messages": QUESTION, "max_tokens": 12, "temperature": 0}

    whole = client.chat.completions.create(**common, logprobs=True, top_logprobs=2)
    (choice,) = whole.choices
    assert whole.usage.completion_tokens == len(choice.logprobs.content) <= 12, whole
    assert all(token.top_logprobs[0].logprob == token.logprob for token in choice.logprobs.content), whole

    stream = client.chat.completions.create(**common, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == choice.message.content, (text, choice)
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0, chunks[-1]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert reasons == [choice.finish_reason], reasons

    with client.chat.completions.create(**common | {"max_tokens": 200}, stream=True) as stream:
        next(iter(stream))  # Closes the connection before the stream ends.

    continued = client.completions.create(model=model, prompt="Once upon", max_tokens=5, temperature=0, logprobs=1)
    assert continued.usage.completion_tokens == len(continued.choices[0].logprobs.tokens), continued

    try:
        client.chat.completions.create(**common | {"model": "gpt-9"})
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    else:
        raise AssertionError("a request for an unknown model succeeded")
    print(f"openai {openai.__version__}: a chat, the same streamed, a hang-up, a continuation, an error")


main(*sys.argv[1:])
