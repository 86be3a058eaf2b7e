#!/usr/bin/env python3
"""What users of the official `openai` client do, against a server with the bundled model.

Usage: openai_checks.py PROGRAM    (in an environment of requirements-openai.txt)
Every check is a function of a client and the server; the names and times are printed.
"""
import json
import sys
import threading
import time

import openai

from serving import KEY, Serving

QUESTION = [{"role": "user", "content": "Tell me a story."}]
TOOLS = [{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "maxLength": 12},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["place", "days"],
            "additionalProperties": False,
        },
    },
}]


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def expect_error(kind, call, status, contains):
    try:
        call()
    except kind as error:
        expect(error.status_code == status, f"status {error.status_code}, not {status}")
        expect(contains in str(error), f"{contains!r} is not in {error}")
        expect(isinstance(error.body, dict) and error.body.get("message"), f"body {error.body}")
        return
    raise AssertionError(f"no {kind.__name__}")


def lists_models(client, server, model):
    models = client.models.list().data
    expect(len(models) >= 1, "no model")
    one = client.models.retrieve(models[0].id)
    expect(one.id == models[0].id and one.max_model_len > 0, f"model {one}")
    expect_error(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"), 404,
                 "no-such-model")


def answers_a_chat(client, server, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=12,
                                            temperature=0)
    choice = answer.choices[0]
    expect(answer.object == "chat.completion" and answer.model == model, f"answer {answer}")
    expect(choice.message.role == "assistant" and choice.message.content, f"choice {choice}")
    expect(choice.finish_reason in ("stop", "length"), f"choice {choice}")
    usage = answer.usage
    expect(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, f"usage {usage}")
    expect(1 <= usage.completion_tokens <= 12, f"usage {usage}")


def streams_what_it_answers(client, server, model):
    options = dict(model=model, messages=QUESTION, max_tokens=24, seed=5, n=2)
    whole = client.chat.completions.create(**options)
    texts = ["", ""]
    reasons = [None, None]
    usage = None
    for chunk in client.chat.completions.create(**options, stream=True,
                                                stream_options={"include_usage": True}):
        expect(chunk.object == "chat.completion.chunk", f"chunk {chunk}")
        if not chunk.choices:
            usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    expect(texts == [choice.message.content for choice in whole.choices], f"{texts} for {whole}")
    expect(reasons == [choice.finish_reason for choice in whole.choices], f"{reasons}")
    expect(usage == whole.usage, f"{usage} for {whole.usage}")
    expect(texts[0] != texts[1], "two choices are the same")


def completes_prompts(client, server, model):
    answer = client.completions.create(model=model, prompt=["Once upon", [1, 2, 3]], max_tokens=5,
                                       temperature=0, echo=True)
    expect([choice.index for choice in answer.choices] == [0, 1], f"answer {answer}")
    expect(answer.choices[0].text.startswith("Once upon"), f"answer {answer}")
    text = ""
    for chunk in client.completions.create(model=model, prompt="Once upon", max_tokens=5,
                                           temperature=0, stream=True):
        text += chunk.choices[0].text if chunk.choices else ""
    expect("Once upon" + text == answer.choices[0].text, f"{text!r} for {answer}")


def stops_at_stop_strings(client, server, model):
    whole = client.completions.create(model=model, prompt="The king", max_tokens=40, temperature=0)
    text = whole.choices[0].text
    expect(len(text) > 4, f"too short to test: {text!r}")
    stop = text[3:5]
    answer = client.completions.create(model=model, prompt="The king", max_tokens=40, temperature=0,
                                       stop=[stop, "zzzzzz"])
    expect(answer.choices[0].text == text[:text.index(stop)], f"{answer} for {text!r} and {stop!r}")
    expect(answer.choices[0].finish_reason == "stop", f"{answer}")


def gives_logprobs(client, server, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=4,
                                            temperature=0, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    expect(len(tokens) == answer.usage.completion_tokens or len(tokens) == 4, f"{tokens}")
    for token in tokens:
        expect(len(token.top_logprobs) == 3 and token.logprob <= 0, f"{token}")
        best = max(top.logprob for top in token.top_logprobs)
        expect(abs(token.logprob - best) < 1e-4, f"{token} was chosen at temperature 0")
    old = client.completions.create(model=model, prompt="A", max_tokens=4, temperature=0, logprobs=2)
    logprobs = old.choices[0].logprobs
    expect(len(logprobs.tokens) == len(logprobs.token_logprobs) == 4, f"{logprobs}")
    expect("".join(logprobs.tokens) == old.choices[0].text, f"{logprobs}")


def calls_a_named_tool(client, server, model):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    options = dict(model=model, messages=QUESTION, tools=TOOLS, tool_choice=choice, max_tokens=200,
                   seed=1)
    answer = client.chat.completions.create(**options)
    call = answer.choices[0].message.tool_calls[0]
    expect(call.type == "function" and call.id and call.function.name == "get_weather", f"{call}")
    arguments = json.loads(call.function.arguments)
    expect(set(arguments) == {"place", "days"} and 1 <= arguments["days"] <= 9, f"{arguments}")
    pieces = ""
    ids = []
    for chunk in client.chat.completions.create(**options, stream=True):
        for delta in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            expect(delta.index == 0, f"{delta}")
            ids += [delta.id] if delta.id else []
            pieces += delta.function.arguments or ""
    expect(json.loads(pieces) == arguments, f"{pieces} for {arguments}")
    expect(len(ids) == 1, f"ids {ids}")


def must_call_a_tool(client, server, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, tools=TOOLS,
                                            tool_choice="required", parallel_tool_calls=False,
                                            max_tokens=300, seed=2)
    message = answer.choices[0].message
    expect(len(message.tool_calls) == 1 and not message.content, f"{message}")
    expect(answer.choices[0].finish_reason in ("tool_calls", "length"), f"{answer}")
    history = QUESTION + [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"},
    ]
    answer = client.chat.completions.create(model=model, messages=history, tools=TOOLS, max_tokens=4,
                                            tool_choice="none")
    expect(answer.choices[0].message.tool_calls is None, f"{answer}")


def keeps_to_a_schema(client, server, model):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8},
                       "kind": {"enum": ["cat", "dog"]},
                       "ages": {"type": "array", "items": {"type": "integer", "minimum": 0,
                                                           "maximum": 20},
                                "minItems": 1, "maxItems": 3}},
        "required": ["name", "kind", "ages"],
        "additionalProperties": False,
    }
    for seed in range(4):
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=200, seed=seed,
            response_format={"type": "json_schema",
                             "json_schema": {"name": "pet", "schema": schema, "strict": True}})
        expect(answer.choices[0].finish_reason == "stop", f"{answer}")
        pet = json.loads(answer.choices[0].message.content)
        expect(pet["kind"] in ("cat", "dog") and len(pet["name"]) <= 8, f"{pet}")
        expect(1 <= len(pet["ages"]) <= 3 and all(0 <= age <= 20 for age in pet["ages"]), f"{pet}")


def refuses_with_reasons(client, server, model):
    create = client.chat.completions.create
    expect_error(openai.BadRequestError,
                 lambda: create(model=model, messages=QUESTION, temperature=-1), 400, "temperature")
    expect_error(openai.BadRequestError, lambda: create(model=model, messages=[]), 400, "messages")
    expect_error(openai.NotFoundError, lambda: create(model="other", messages=QUESTION), 404, "other")
    expect_error(openai.BadRequestError,
                 lambda: create(model=model, messages=QUESTION, max_tokens=10_000_000), 400,
                 "context length")
    stranger = openai.OpenAI(base_url=server.url + "/v1", api_key="wrong", max_retries=0)
    expect_error(openai.AuthenticationError, stranger.models.list, 401, "key")


def cancels_a_stream(client, server, model):
    stream = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2000,
                                            stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    expect(server.load()["server_load"] >= 1, f"{server.load()}")
    stream.close()
    server.wait_until_idle(10)


def serves_many_at_once(client, server, model):
    solo = [client.completions.create(model=model, prompt=f"Number {i}", max_tokens=16,
                                      temperature=0).choices[0].text for i in range(16)]
    texts = [None] * 16

    def run(i):
        texts[i] = client.completions.create(model=model, prompt=f"Number {i}", max_tokens=16,
                                             temperature=0).choices[0].text

    threads = [threading.Thread(target=run, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expect(texts == solo, f"{texts} for {solo}")


CHECKS = [lists_models, answers_a_chat, streams_what_it_answers, completes_prompts,
          stops_at_stop_strings, gives_logprobs, calls_a_named_tool, must_call_a_tool,
          keeps_to_a_schema, refuses_with_reasons, cancels_a_stream, serves_many_at_once]


def main():
    failures = 0
    with Serving(sys.argv[1], key=KEY) as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0, timeout=60)
        model = client.models.list().data[0].id
        for check in CHECKS:
            start = time.monotonic()
            try:
                check(client, server, model)
                outcome = "ok"
            except Exception as error:  # Each check is told of; all of them run.
                outcome = f"FAILED: {type(error).__name__}: {error}"
                failures += 1
            print(f"openai {openai.__version__} {check.__name__}: {outcome} "
                  f"({time.monotonic() - start:.2f} s)", flush=True)
        server.wait_until_idle(10)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
