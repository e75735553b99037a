"""OpenAI's Python client against a real server: `moderations.py http://127.0.0.1:8080 PHOTO`."""

import base64
import sys

import openai

CLEAN = "Thank you for fixing the article so quickly, it reads much better now."
INSULT = "You are so dumb and stupid!"


def main(url: str, photo: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    one = client.moderations.create(input=INSULT)
    assert one.results[0].flagged and one.results[0].categories.harassment, one
    assert one.results[0].category_scores.harassment > 0.7, one
    assert one.results[0].category_applied_input_types.harassment == ["text"], one
    assert one.id.startswith("modr-") and one.model == "moderate", one

    several = client.moderations.create(model="omni-moderation-latest", input=[CLEAN, INSULT, CLEAN])
    assert [result.flagged for result in several.results] == [False, True, False], several

    with open(photo, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    parts = [
        {"type": "text", "text": INSULT},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}},
    ]
    both = client.moderations.create(model="moderate", input=parts)
    (result,) = both.results
    assert result.categories.harassment and not result.categories.sexual, both
    assert result.category_applied_input_types.sexual == ["image"], both

    raw = client.moderations.with_raw_response.create(
        input=INSULT, extra_body={"infer": {"thresholds": dict.fromkeys(("harassment", "hate"), 1.0)}}
    )
    assert raw.headers["x-infer-action"] == "allow", raw.headers
    assert not raw.parse().results[0].flagged

    for arguments, kind, code in [
        ({"model": "gpt-9", "input": CLEAN}, openai.NotFoundError, "model_not_found"),
        ({"input": []}, openai.BadRequestError, "invalid_input"),
        (
            {"input": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]},
            openai.BadRequestError,
            "invalid_input",
        ),
    ]:
        try:
            client.moderations.create(**arguments)
        except kind as error:
            assert error.code == code, error
        else:
            raise AssertionError(f"{arguments} succeeded, expected {kind.__name__}")
    print(f"openai {openai.__version__}: a text, a list, an image part, a threshold, three errors")


main(*sys.argv[1:])
