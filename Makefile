# Shortcuts over CMake presets; see CONTRIBUTING.md. Each target installs what it misses.
.PHONY: help run build test bench sim-table format check-format clean

help:
	@echo "make run           build, and let the bundled model answer on 4 CPU instances"
	@echo "make build         build everything of the cpu preset, tests included"
	@echo "make test          everything CI runs (STEPS='cpu asan ...' runs some of it)"
	@echo "make bench         build and run the benchmarks"
	@echo "make sim-table     sustained request rates of all policies (hours; resumes; OPTIONS='--estimate')"
	@echo "make format        format all C++ sources"
	@echo "make check-format  fail if a C++ source is not formatted"
	@echo "make clean         remove the build folder"

run:
	@tools/run_demo.sh

build:
	@tools/install_packages.sh test
	cmake --preset cpu
	cmake --build --preset cpu --parallel $(or $(JOBS),2)

test:
	@tools/test_all.sh $(STEPS)

bench:
	@tools/run_bench.sh

sim-table:
	@tools/run_sim_table.sh $(OPTIONS)

format:
	@tools/format.sh -i

check-format:
	@tools/format.sh --dry-run --Werror

clean:
	rm -rf build
