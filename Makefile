# make            build the release binary
# make demo       the whole tool on real servers, start to end
# make test       bring the servers and web frameworks that the tests need, and run all tests
# make lint docs  what else the gate checks
# make install    what make has built: DESTDIR and PREFIX are honoured

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
TARGET  := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

.PHONY: build demo servers test lint docs install bench

build:
	$(CARGO) build --locked --release

servers:
	tests/servers/fetch.sh
	tests/clients/fetch.sh

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

bench:
	$(CARGO) bench --locked --bench engine

# Not after `build`: root has no toolchain, as a rule.
install:
	@test -x $(TARGET)/release/rdbkeeper || { echo "there is no $(TARGET)/release/rdbkeeper yet: run make first"; exit 1; }
	install -D -m 755 $(TARGET)/release/rdbkeeper $(DESTDIR)$(PREFIX)/bin/rdbkeeper
	install -D -m 644 config/rdbkeeper.toml $(DESTDIR)$(PREFIX)/share/doc/rdbkeeper/rdbkeeper.toml
	install -D -m 644 config/websauna.toml $(DESTDIR)$(PREFIX)/share/doc/rdbkeeper/websauna.toml
	install -m 644 README.md docs/configuration.md docs/restore.md docs/sessions.md $(DESTDIR)$(PREFIX)/share/doc/rdbkeeper/
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(TARGET)/release/rdbkeeper man > $(DESTDIR)$(PREFIX)/share/man/man1/rdbkeeper.1
	$(TARGET)/release/rdbkeeper completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/rdbkeeper
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in systemd/*; do \
	  sed 's,/usr/bin/rdbkeeper,$(PREFIX)/bin/rdbkeeper,' "$$unit" > $(DESTDIR)$(PREFIX)/lib/systemd/system/"$${unit##*/}" || exit 1; done
