# The build: a toolchain, and what the C parts (zlib-ng, aws-lc, SQLite) need.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
# Benches, tests and fuzz targets are named in Cargo.toml, and must exist for it to be read.
RUN mkdir -p benches/load tests/it tests/fuzz \
    && touch benches/codec.rs benches/scale.rs benches/load/main.rs tests/it/main.rs tests/fuzz/program.rs
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --profile dist --locked --bin smithgate \
    && cp target/dist/smithgate /smithgate \
    && strip /smithgate

# What runs: the binary, certificates of the public authorities, a user of its own.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home smithgate \
    && install -d -o smithgate -g smithgate -m 0700 /data
COPY --from=build /smithgate /usr/local/bin/smithgate
COPY config/smithgate.example.toml /etc/smithgate/smithgate.example.toml
USER smithgate
WORKDIR /data
ENV SMITHGATE_DATA_DIR=/data \
    SMITHGATE_SERVER__LISTEN=0.0.0.0:8080 \
    SMITHGATE_METRICS__LISTEN=0.0.0.0:9090
VOLUME /data
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/smithgate"]
CMD ["serve"]
