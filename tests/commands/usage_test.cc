// Whatever is wrong with a command line or a file: one line on stderr that names it, exit code 1.
#include <gtest/gtest.h>

#include <algorithm>

#include "program.h"

namespace nanocp::tests {
namespace {

void expect_error(const std::vector<std::string>& arguments, const std::string& message) {
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err.rfind("error: ", 0), 0U) << result.err;
  EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
}

constexpr const char* kModel = "tests/fixtures/tiny_chat";

TEST(Usage, HelpNamesCommandsAndGroups) {
  const ProgramResult all = run_program({"--help"});
  EXPECT_EQ(all.exit_code, 0);
  for (const char* word : {"generate", "serve", "verify", "inspect", "devices"}) {
    EXPECT_NE(all.out.find(word), std::string::npos) << word;
  }
  const ProgramResult generate = run_program({"generate", "--help"});
  EXPECT_EQ(generate.exit_code, 0);
  for (const char* word : {"Prompts:", "Sampling", "Model:", "Instances and context parallelism:",
                           "KV cache:", "Steps:", "Output:", "--data-parallel-size"}) {
    EXPECT_NE(generate.out.find(word), std::string::npos) << word;
  }
}

TEST(Usage, BadCommandLinesAreRefused) {
  expect_error({}, "no command: use one of generate, serve, verify");
  expect_error({"serve-all"}, "unknown command 'serve-all'");
  expect_error({"generate"}, "give --prompt TEXT, --prompts FILE, --chat TEXT");
  expect_error({"generate", "--bogus"}, "--bogus");
  expect_error({"generate", "--prompt"}, "--prompt");
  expect_error({"generate", "--prompt", "x", "--instances", "0"}, "--instances: Value 0");
  expect_error({"generate", "--prompt", "x", "--instances", "many"}, "--instances");
  expect_error({"generate", "--prompt", "x", "--load-format", "gguf"}, "--load-format: gguf");
  expect_error({"generate", "--prompt", "x", "--expert-weights", "int4"}, "--expert-weights: int4");
  expect_error({"generate", "--prompt", "x", "--kv-cache-dtype", "int8"}, "--kv-cache-dtype: int8");
  expect_error({"generate", "--prompt", "x", "--kv-memory", "3 parsecs"}, "--kv-memory");
  expect_error({"generate", "--prompt", "x", "--kv-memory", "1MiB", "--num-kv-blocks", "4"},
               "--kv-memory");
  expect_error({"verify"}, "MODEL_DIR is required");
  expect_error({"verify", "--tokenizer", "x"}, "--golden is required");
  expect_error({"verify", "x", "--tokenizer", "y"}, "MODEL_DIR excludes --tokenizer");
  expect_error({"verify", kModel, "--tolerance", "-1"}, "--tolerance");
}

TEST(Usage, BadSettingsAreRefused) {
  const auto refused = [](std::vector<std::string> flags, const std::string& message) {
    flags.insert(flags.begin(), {"generate", "--prompt", "x"});
    expect_error(flags, message);
  };
  refused({"--policy", "best"}, "policy 'best' is unknown: use bound");
  refused({"--policy", "bound", "--router", "luck"}, "router 'luck' is unknown");
  refused({"--cp-degree", "3", "--instances", "2"}, "degree 3 on 2 instances");
  refused({"--max-cp-degree", "0"}, "--max-cp-degree: Value 0");
  refused({"--max-cp-degree", "3", "--instances", "2"}, "max_cp_degree is 3 on 2 instances");
  refused({"--max-cp-degree", "1", "--instances", "2", "--cp-degree", "2"},
          "degree 2: a request may have a context-parallel degree of 1 at most");
  refused({"--max-model-len", "100000"}, "--max-model-len is 100000, this model has 8192");
  refused({"--max-num-batched-tokens", "4", "--max-num-seqs", "5"}, "max_num_seqs 5");
  refused({"--num-kv-blocks", "2"}, "needs 128 KV tokens");
  refused({"--num-kv-blocks", "2000000000"}, "the KV cache needs 2000000000 blocks");
  refused({"--temperature", "-1"}, "temperature is -1");
  refused({"--top-p", "0"}, "top_p is 0");
  refused({"--min-tokens", "9", "--max-tokens", "8"}, "min_tokens is 9");
  refused({"--stop-token-ids", "4096"}, "stop_token_ids[0] is 4096");
}

TEST(Usage, MissingFilesAreNamed) {
  const TempFolder folder;
  expect_error({"generate", "no/such/model", "--prompt", "x"}, "no/such/model: no such directory");
  expect_error({"generate", folder.path(), "--prompt", "x"}, "config.json");
  expect_error({"generate", "--prompts", "no/such.jsonl"}, "no/such.jsonl: No such file");
  expect_error({"generate", "--prompts", folder.path()}, "is a directory");
  expect_error({"generate", "--config", "configs/mixtral-8x7b.json", "--prompt", "x"},
               "add --load-format dummy");
  expect_error({"generate", "--config", "tests/fixtures/mixtral/config.json", "--load-format",
                "dummy", "--prompt", "x"},
               "text needs a MODEL_DIR with a tokenizer.json");
  expect_error({"generate", "tests/fixtures/mixtral", "--prompt", "x"},
               "tests/fixtures/mixtral/tokenizer.json: no such file");
  expect_error({"verify", "no/such/model"}, "no/such/model: no such directory");
  expect_error({"verify", kModel}, "tests/fixtures/tiny_chat/golden.json: No such file");
}

TEST(Usage, BadChatsAreRefusedByFileAndField) {
  const TempFolder folder;
  const auto refused = [&](const std::string& content, const std::string& message) {
    expect_error({"generate", "--messages", folder.write("m.json", content)}, message);
  };
  refused("[", "m.json: not valid JSON near byte 2");
  refused("7", "m.json: must be a list of messages or an object with one");
  refused("{\"mesages\": []}", "m.json: \"mesages\" is not a known field");
  refused("[]", "m.json: messages must not be empty");
  refused("[7]", "m.json: messages[0] must be an object");
  refused("[{\"content\": \"a\"}]", "m.json: messages[0].role must be a string");
  refused("{\"messages\": [{\"role\": \"user\"}], \"tools\": 1}", "m.json: tools must be a list");
  expect_error({"generate", "--messages", "no/such.json"}, "no/such.json: no such file");
  expect_error({"generate", "tests/fixtures/mixtral", "--chat", "x"},
               "tests/fixtures/mixtral: no chat template");
  expect_error({"generate", "no/such/model", "--chat", "x"}, "no/such/model: no such directory");
  expect_error({"generate", "--config", "tests/fixtures/mixtral/config.json", "--load-format",
                "dummy", "--chat", "x"},
               "a chat needs a MODEL_DIR with a chat template");
}

TEST(Usage, BadPromptFilesAreRefusedByLineAndField) {
  const TempFolder folder;
  const auto refused = [&](const std::string& content, const std::string& message) {
    expect_error({"generate", "--prompts", folder.write("p.jsonl", content)}, message);
  };
  refused("", "p.jsonl: has no prompts");
  refused("hello", "p.jsonl:1: not a JSON object");
  refused("{\"prompt\": \"a\"}\n\n[1]\n", "p.jsonl:3: not a JSON object");
  refused(std::string(200000, '['), "p.jsonl:1: not a JSON object");
  refused("{\"text\": \"a\"}", "p.jsonl:1: has no \"prompt\"");
  refused("{\"prompt\": 7}", "p.jsonl:1: \"prompt\" must be a text, or an array of token ids");
  refused("{\"prompt\": [1, -2]}", "\"prompt\" must be a text");
  refused("{\"prompt\": \"\"}", "p.jsonl:1: prompt is empty");
  refused("{\"prompt\": [4096]}", "p.jsonl:1: prompt[0] is 4096");
  refused("{\"prompt\": \"a\", \"max_tokns\": 3}", "\"max_tokns\" is not a known field");
  refused("{\"prompt\": \"a\", \"max_tokens\": 0}", "\"max_tokens\" must be an integer");
  refused("{\"prompt\": \"a\", \"max_tokens\": 1e3}", "\"max_tokens\" must be an integer");
  refused("{\"prompt\": \"a\", \"max_tokens\": 99999999999}", "\"max_tokens\" must be");
  refused("{\"prompt\": \"a\", \"temperature\": \"hot\"}", "\"temperature\" must be a number");
  refused("{\"prompt\": \"a\", \"top_p\": 2}", "p.jsonl:1: top_p is 2");
  refused("{\"prompt\": \"a\", \"seed\": -1}", "\"seed\" must be");
  refused("{\"prompt\": \"a\", \"stop\": [\"\"]}", "\"stop\" must be");
  refused("{\"prompt\": \"a\", \"stop_token_ids\": 3}", "\"stop_token_ids\" must be");
  refused("{\"prompt\": \"a\", \"logit_bias\": {\"x\": 1}}", "\"logit_bias\" must be");
  refused("{\"prompt\": \"a\", \"ignore_eos\": 1}", "\"ignore_eos\" must be true or false");
}

}  // namespace
}  // namespace nanocp::tests
