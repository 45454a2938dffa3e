# make            build the release binary
# make demo       the whole tool on real servers, start to end
# make test       bring the servers and web frameworks that the tests need, and run all tests
# make lint docs  what else the gate checks
# make bench      the engine alone, then whole commands beside their peers: make bench SESSIONS=100000 SCALE=0.1 RUNS=3 is short
# make install    what make has built: DESTDIR and PREFIX are honoured
# make deb        a Debian package of it, in target/debian

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
TARGET  := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

.PHONY: build demo servers test lint docs install deb bench

build:
	$(CARGO) build --locked --release

servers:
	tests/servers/fetch.sh
	tests/clients/fetch.sh
	tests/systemd/fetch.sh

demo: build
	RDBKEEPER=$(abspath $(TARGET)/release/rdbkeeper) tests/demo/demo.sh

test: servers
	$(CARGO) test --locked --all-targets
	$(CARGO) test --locked --doc

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# The sizes of benches/compare.py, and where its table goes.
SESSIONS ?= 1000000
SCALE    ?= 1.0
RUNS     ?= 5
TABLE    ?= $(TARGET)/bench/compare.md

bench:
	$(CARGO) bench --locked --bench engine
	benches/compare.py --sessions $(SESSIONS) --scale $(SCALE) --runs $(RUNS) --markdown $(TABLE)

# Not after `build`: root has no toolchain, as a rule.
BUILT   = $(TARGET)/release/rdbkeeper
ASSETS  = $(TARGET)/release/assets
ROOT    = $(DESTDIR)$(PREFIX)
DOC     = $(ROOT)/share/doc/rdbkeeper
# systemd looks for users and folders of local programs in /usr/local/lib, too; for units in both.
SYSTEMD = $(ROOT)/lib/systemd/system

install:
	@test -x $(BUILT) || { echo "there is no $(BUILT) yet: run make first"; exit 1; }
	packaging/assets.sh $(BUILT) $(ASSETS)
	install -D -m 755 $(BUILT) $(ROOT)/bin/rdbkeeper
	install -D -m 644 $(ASSETS)/rdbkeeper.1 $(ROOT)/share/man/man1/rdbkeeper.1
	install -D -m 644 $(ASSETS)/rdbkeeper.bash $(ROOT)/share/bash-completion/completions/rdbkeeper
	install -D -m 644 $(ASSETS)/rdbkeeper.zsh $(ROOT)/share/zsh/site-functions/_rdbkeeper
	install -D -m 644 $(ASSETS)/rdbkeeper.fish $(ROOT)/share/fish/vendor_completions.d/rdbkeeper.fish
	install -d $(DOC)/rdbkeeper.service.d $(SYSTEMD)
	install -m 644 README.md CHANGELOG.md docs/*.md config/rdbkeeper.toml config/websauna.toml config/debian.toml $(DOC)/
	install -m 644 systemd/rdbkeeper.service.d/*.example $(DOC)/rdbkeeper.service.d/
	install -D -m 644 systemd/rdbkeeper.sysusers $(ROOT)/lib/sysusers.d/rdbkeeper.conf
	install -D -m 644 systemd/rdbkeeper.tmpfiles $(ROOT)/lib/tmpfiles.d/rdbkeeper.conf
	for unit in systemd/*.service systemd/*.timer; do \
	  sed 's,/usr/bin/rdbkeeper,$(PREFIX)/bin/rdbkeeper,' "$$unit" > $(SYSTEMD)/"$${unit##*/}" || exit 1; done

deb: build
	mkdir -p $(TARGET)/debian
	packaging/deb.sh release $(TARGET)/debian/
	@ls $(TARGET)/debian/*.deb
