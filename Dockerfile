# An image with one program in it and no shell. Two ways lead there, and `--target` (in
# docker-compose.yml the variable DUNLIN_BUILD) chooses:
#
#   source     builds the program here, on the official Rust image (the default)
#   prebuilt   takes what `cargo build --release && docker/stage.sh` laid out in target/image; nothing
#              is pulled
#
# Data belongs in the volume /var/lib/dunlin, the cluster's CA and secrets in /var/lib/dunlin-pki. Both
# belong to user 10001, which the program runs as.

FROM scratch AS base
# A volume that is mounted here for the first time takes over whose the folder is.
COPY --chown=10001:10001 docker/volumes/ /var/lib/
WORKDIR /var/lib/dunlin
USER 10001:10001
EXPOSE 8883/tcp 5671/tcp 9093/tcp 8443/tcp 8900/udp
STOPSIGNAL SIGTERM
# The data directory is `dunlin-data` in the working directory, for `serve` as for `health`.
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s --retries=3 CMD ["dunlin", "health"]
ENTRYPOINT ["dunlin"]
CMD ["serve", "--bind", "0.0.0.0"]

FROM base AS prebuilt
# With the pattern and the licence beside it, this stage can be built (to no use) where nothing is laid
# out: Docker without BuildKit builds it on the way to the next one.
COPY LICENSE target/imag[e] /

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked && docker/stage.sh target/release/dunlin /image

FROM base AS source
COPY --from=build /image/ /
