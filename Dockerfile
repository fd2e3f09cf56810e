# The image: the static binary, the certificates that rediss:// and jwks_url need, and nothing else.
# `make image` takes both from `make dist`, and needs no registry: a build context named `root` replaces the first stage.
# `docker build .` compiles them, and needs the image of Rust.

# Tags move, and a digest that is written here would miss the security fixes of Debian.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm

FROM ${BUILD_IMAGE} AS root
RUN apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates musl-tools
WORKDIR /src
COPY . .
ARG TARGETARCH
# What `roomcast --version` prints; the history is not in the build context.
ARG BUILD_COMMIT
# The caches outlive the layer, so a changed source file recompiles this crate and not its dependencies. What is in a
# cache is not in the image: the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target=$(uname -m)-unknown-linux-musl \
    && rustup target add $target \
    && CC=musl-gcc cargo build --release --locked --bin roomcast --target $target \
    && install -D target/$target/release/roomcast /$TARGETARCH/roomcast \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /$TARGETARCH/etc/ssl/certs/ca-certificates.crt

FROM scratch
ARG TARGETARCH
COPY --from=root /${TARGETARCH}/ /
# ./roomcast.toml is read where it exists: mount it here, and `serve`, `check` and `health` all find it.
WORKDIR /etc/roomcast
USER 65532:65532
EXPOSE 8080
# Huge pages would round the memory of a small node up to 2 MB steps; see benches/README.md.
ENV MIMALLOC_ALLOW_THP=0
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/roomcast", "health"]
ENTRYPOINT ["/roomcast"]
CMD ["serve"]
