# Run `make` to see what there is.
CLUSTER_TOOL := tests/cluster/cluster
# Instances of the cluster tool: tests have one of their own, so that a demo may stay up beside them.
TEST := CLUSTER_NAME=test $(CLUSTER_TOOL)
BENCH := CLUSTER_NAME=bench $(CLUSTER_TOOL)
# Its operator serves all namespaces.
TENANTS := CLUSTER_NAME=tenants $(CLUSTER_TOOL)
# What is installed there is cluster-wide, so nothing else may run in it.
INSTALL := CLUSTER_NAME=install $(CLUSTER_TOOL)
HOSTS_TOOL := tests/hosts/hosts
# What needs KubeVirt has an instance of its own: it is cluster-wide, and its guests want the machine for themselves.
VMS := CLUSTER_NAME=vms $(CLUSTER_TOOL)
# The profile of the binary in the image under test: test-image is built in a fraction of release's time.
TEST_PROFILE ?= test-image
# Of the simulation: SEEDS fixed ones, from 0 on, and FRESH from a base that is new in every run.
SEEDS ?= 1000
FRESH ?= 1000
SMOKE_NODES ?= 250
ROUNDS ?= 1
# Of the points at which the operator is killed, one in so many. `make test` has no time for all of them.
EVERY ?= 1
# All that `benches/ssh/others` knows, but for Ansible with its default of 5 forks: that takes ten minutes.
TOOLS ?= parallel-ssh pyinfra pyinfra-scripts ansible-raw-forks-50 ansible-forks-50

.PHONY: help demo demo-down dialects test test-unit test-otel test-cluster test-tenants test-faults test-outages test-vms test-install bench-smoke bench-lift bench-ssh soak image sbom book cluster cluster-down crds lint lint-shell advisories release-check fmt

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## a Kubernetes, the operator and a group of three pods, shown until it is Ready (CLUSTER=existing: in KUBECONFIG's)
	@hack/demo

demo-down: ## ends what demo started
	@hack/demo --down

# PyPI is asked; what it answers with is pinned. The comparison itself is a test that needs neither Python nor network.
dialects: ## what Jinja2, Ansible and Kubernetes' CEL make of tests/dialects, asked again
	python3 -m venv target/dialects
	target/dialects/bin/pip install --quiet --disable-pip-version-check -r tests/dialects/requirements.txt
	target/dialects/bin/python tests/dialects/templates.py
	cd tests/dialects/cel && go run . context.json <expressions.txt >table.jsonl.new && mv table.jsonl.new table.jsonl

test: test-unit test-otel test-cluster test-install ## every tier: unit, simulation, agent, traces, API, end to end, kwok smoke, installation

test-unit: ## the tiers that need no cluster
	YES=$(YES) $(CLUSTER_TOOL) doctor --install
	YES=$(YES) $(HOSTS_TOOL) doctor --install
	tests/cluster/selftest
	cargo build --locked --workspace --all-targets
	cargo test --locked --workspace --lib --bins --test crds --test architecture --test docs --test kwok_shell --test templates --test session_fuzz --test server_specs \
	  --test kstatus --test argocd --test supply_chain --test expressions --test dialects
	cargo test --locked --test agent -- --test-threads=6
	cargo test --locked --test ssh -- --test-threads=6
	SEEDS=$(SEEDS) FRESH=$(FRESH) cargo test --locked --test simulation -- --nocapture

test-otel: ## traces, which are built in with --features otel only: a collector on loopback receives them
	cargo test --locked --features otel --test otel

# Built outside the cluster's network, which leads nowhere, and run inside it.
test-cluster: ## the tiers that need one: started here, and ended
	YES=$(YES) $(CLUSTER_TOOL) doctor --install
	YES=$(YES) tests/cluster/images/build debian >/dev/null
	YES=$(YES) tests/cluster/packages/build >/dev/null
	YES=$(YES) $(HOSTS_TOOL) build >/dev/null
	cargo build --locked --workspace --all-targets
	$(TEST) up
	@status=0; \
	$(TEST) run -- env PALLET_TEST_CLUSTER=1 cargo test --offline --locked --test api || status=1; \
	$(TEST) run -- env PALLET_TEST_CLUSTER=1 cargo test --offline --locked --test e2e -- --test-threads=8 --nocapture || status=1; \
	$(MAKE) --no-print-directory test-faults EVERY=2 || status=1; \
	$(MAKE) --no-print-directory test-outages || status=1; \
	$(MAKE) --no-print-directory bench-smoke || status=1; \
	$(TEST) down || status=1; \
	exit $$status

# Not part of `test`: what is measured are times, and node, API server and operator share the processors of one machine.
test-tenants: ## one operator, a hostile tenant and a well-behaved one; on a cluster of its own
	YES=$(YES) $(CLUSTER_TOOL) doctor --install
	cargo build --locked --workspace --bins --test e2e
	$(TENANTS) up
	@status=0; $(TENANTS) run -- env PALLET_TEST_CLUSTER=1 \
		cargo test --offline --locked --test e2e -- --ignored --nocapture tenants:: || status=1; \
	$(TENANTS) down || status=1; exit $$status

# ROUNDS is for more of the dice, SEED for the same again, EVERY for fewer points.
test-faults: ## the operator killed before and after each write, each write met by each fault; needs the test instance up
	$(TEST) run -- env PALLET_TEST_CLUSTER=1 ROUNDS=$(ROUNDS) SEED=$(SEED) EVERY=$(EVERY) \
		cargo test --offline --locked --test e2e -- --ignored --test-threads=3 --nocapture points::

test-outages: ## API server, etcd, kubelet and containerd go away while groups work; needs the test instance up
	$(TEST) run -- env PALLET_TEST_CLUSTER=1 \
		cargo test --offline --locked --test e2e -- --ignored --test-threads=1 --nocapture outages:: virtual_machines::kubevirt

# Not part of `test`: the first build takes ten minutes, and a guest that is emulated wants a processor for itself.
test-vms: ## virtual machines through KubeVirt's API and real guests (a stand-in for virt-handler runs them); first 10 min, then 5
	YES=$(YES) tests/vms/vms doctor --install
	cargo build --locked --workspace --bins --test e2e
	$(VMS) up
	@status=0; CLUSTER_NAME=vms YES=$(YES) tests/vms/vms up cloud-init && \
	$(VMS) run -- env PALLET_TEST_CLUSTER=1 cargo test --offline --locked --test e2e -- --include-ignored \
		--test-threads=2 --nocapture virtual_machine || status=1; \
	$(VMS) down || status=1; exit $$status

test-install: ## the installation tier: image, kustomize, chart and roles, on a cluster of its own
	YES=$(YES) $(CLUSTER_TOOL) doctor --install
	YES=$(YES) PROFILE=$(TEST_PROFILE) IMAGE=localhost/pallet-operator:test OUT=target/image/test.tar hack/image
	cargo build --locked --test install
	@helm=$$($(INSTALL) helm) && $(INSTALL) up && $(INSTALL) load target/image/test.tar; status=$$?; \
	$(INSTALL) run -- ctr -n k8s.io images tag --force localhost/pallet-operator:test localhost/pallet-operator:next || status=1; \
	[ $$status -ne 0 ] || $(INSTALL) run -- env PALLET_TEST_CLUSTER=1 PALLET_HELM=$$helm \
		cargo test --offline --locked --test install -- --test-threads=1 --nocapture || status=1; \
	$(INSTALL) down || status=1; \
	exit $$status

bench-smoke: ## SMOKE_NODES nodes on kwok, and what each costs; needs the test instance up
	$(TEST) kwok up 5
	$(TEST) run -- env PALLET_TEST_CLUSTER=1 SMOKE_NODES=$(SMOKE_NODES) \
		cargo test --offline --locked --test smoke -- --nocapture
	$(TEST) kwok down

bench-lift: ## one hot Lift beside kubectl exec and a Job, optimised: a table, and target/bench/lift.json (ROUNDS=60)
	YES=$(YES) $(CLUSTER_TOOL) doctor --install
	cargo build --release --locked -p kubectl-pallet
	cargo bench --locked --bench lift --no-run
	$(BENCH) up
	@status=0; $(BENCH) run -- env PALLET_TEST_CLUSTER=1 $(if $(filter-out 1,$(ROUNDS)),ROUNDS=$(ROUNDS)) \
		cargo bench --offline --locked --bench lift || status=1; $(BENCH) down || status=1; exit $$status

# TOOLS names some of them (see benches/ssh/others --help), HOSTS how many hosts there are.
bench-ssh: ## 100 sshd hosts through four phases, beside Ansible, pyinfra and parallel-ssh: target/bench/ssh.json (HOSTS=, TOOLS=)
	YES=$(YES) $(CLUSTER_TOOL) doctor --install
	YES=$(YES) $(HOSTS_TOOL) doctor --install
	YES=$(YES) $(HOSTS_TOOL) build >/dev/null
	benches/ssh/others --install
	cargo bench --locked --bench ssh --no-run
	$(BENCH) up
	@status=0; $(BENCH) run -- env PALLET_TEST_CLUSTER=1 HOSTS_DIR=/run/pallet/hosts ROUNDS=$(ROUNDS) HOSTS=$(or $(HOSTS),100) \
		TOOLS="$(TOOLS)" cargo bench --offline --locked --bench ssh || status=1; $(BENCH) down || status=1; exit $$status

# A base of its own for each run, unless FIRST says which: it is printed, and replays the run.
soak: SEEDS = 100000
soak: ## the simulation, optimised: SEEDS of them from a new base (or FIRST) on, or for MINUTES; ALL=1 goes on after a failure
	env $(if $(MINUTES),MINUTES=$(MINUTES),SEEDS=$(SEEDS)) FIRST=$(or $(FIRST),$(shell date +%s)000) $(if $(ALL),ALL=$(ALL)) \
		cargo test --profile soak --locked --test simulation -- --nocapture every_seed

image: ## the operator's image as an OCI archive (IMAGE, OUT, PROFILE, BUILDER: see hack/image)
	@hack/image

sbom: ## what is in the image's binary, as CycloneDX: target/image/pallet-operator.cdx.json
	@cargo cyclonedx --version >/dev/null 2>&1 || { echo "cargo-cyclonedx is missing: cargo install --locked cargo-cyclonedx"; exit 1; }
	cargo cyclonedx --format json --spec-version 1.5 --target $(shell uname -m)-unknown-linux-musl --no-build-deps \
		--override-filename pallet-operator.cdx
	@rm -f crates/*/pallet-operator.cdx.json; mkdir -p target/image && mv pallet-operator.cdx.json target/image/

cluster: ## a Kubernetes to try things in
	@$(CLUSTER_TOOL) up

cluster-down: ## ends it
	@$(CLUSTER_TOOL) down

book: ## the documentation as a website, with mdBook: target/book (installs mdBook below target/tools)
	test -x target/tools/bin/mdbook || cargo install --quiet --locked --root target/tools --version 0.5.4 mdbook
	target/tools/bin/mdbook build

crds: ## generates crds/, docs/reference/api.md and reasons.md from the types, and the chart's copies of crds/, deploy/rbac and deploy/admission
	cargo run --quiet --bin crdgen crds charts/pallet-operator/files/crds docs/reference/api.md docs/reference/reasons.md
	cp deploy/rbac/operator/role.yaml charts/pallet-operator/files/operator-role.yaml
	cp deploy/rbac/virtual-machines/role/role.yaml charts/pallet-operator/files/virtual-machines-role.yaml
	cp deploy/admission/policy.yaml charts/pallet-operator/files/admission-policy.yaml
	cp deploy/rbac/users/roles.yaml charts/pallet-operator/files/user-roles.yaml

fmt: ## formats the code
	cargo fmt --all

lint: ## formatting, clippy, cargo-deny; LINT=release fails where advisories cannot be checked
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	cargo clippy --locked --workspace --all-targets --features otel -- --deny warnings
	@$(MAKE) --no-print-directory lint-shell
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny"; exit 1; }
	cargo deny --all-features check bans licenses sources
	@$(MAKE) --no-print-directory advisories

# The agent and the actions are POSIX sh: fragments of one script, without a first line that says so.
SHFMT := go run mvdan.cc/sh/v3/cmd/shfmt@v3.13.0
lint-shell: ## shfmt and shellcheck over every script
	@command -v shellcheck >/dev/null || { echo "shellcheck is missing: apt-get install shellcheck"; exit 1; }
	$(SHFMT) -d .ci benches crates findings hack tests
	shellcheck -S warning -s sh crates/pallet-core/src/session/agent.sh crates/pallet-core/src/phase/sh/*.sh
	shellcheck -S warning -s bash $$($(SHFMT) -f .ci findings hack tests | grep -v -e tests/cluster/kwok/sh -e tests/vms/images/launcher)

# A developer may be offline. A release may not go out unchecked.
advisories: ## known vulnerabilities of dependencies
	@if cargo deny fetch db; then cargo deny --all-features check advisories; \
	elif [ "$(LINT)" = release ]; then echo "the advisory database could not be fetched: no release without it" >&2; exit 1; \
	else echo "WARNING: the advisory database could not be fetched; advisories were NOT checked"; fi

release-check: ## lint as a release needs it: advisories are checked, or it fails
	@$(MAKE) --no-print-directory lint LINT=release
