# syntax=docker/dockerfile:1
# Needs BuildKit (the default of `docker build` since 23.0) for the cache mounts.

ARG RUST_VERSION=1.95
# Tags move, and a digest that is written here would miss the security fixes of Debian. So a release is built with the
# digests of its day: `make image` looks them up and passes them.
ARG BUILD_IMAGE=rust:${RUST_VERSION}-slim-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# aws-lc-rs and mimalloc compile C with the gcc that the slim image has; neither cmake nor clang is needed, because the
# bindings for Linux on x86-64 and arm64 come with aws-lc-sys.
WORKDIR /src
COPY . .
# The caches outlive the layer, so a changed source file recompiles this crate and not its dependencies. What is in a
# cache is not in the image: the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin roomcast \
    && cp target/release/roomcast /roomcast

# glibc, libgcc and the CA certificates that rediss:// and jwks_url need; no shell. Debian 12, as above.
FROM ${RUNTIME_IMAGE}
COPY --from=build /roomcast /roomcast
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
