# An image of Vecdis:
#   docker build -t vecdis .
#   docker run -p 6379:6379 -v vecdis-data:/data vecdis
#   docker compose -f conf/compose.yaml up              with Prometheus's port and a memory limit
#   docker run vecdis --port 7000 --maxmemory 2gb       options on top of the image's own /etc/vecdis.conf
#   docker run vecdis /etc/vecdis.conf                  a configuration file; mount your own over it or elsewhere
#   docker run --rm -v vecdis-data:/data vecdis check /data     a subcommand; "sh" gives a shell
# A folder of the host in place of the volume has to belong to user 999 (chown 999:999 FOLDER).
# A file of your own needs "bind 0.0.0.0", or the server answers only inside its container. Set a password (requirepass)
# before you publish the port to others: the image turns the protected mode off, as peers reach a container from outside.

FROM rust:1.95-bookworm AS builder
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin vecdis && strip target/release/vecdis
# What runs embedding models besides the built-in one; a model itself goes to /data/models (vecdis model add).
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-pip \
    && scripts/fetch-runtime.sh /build/runtime

FROM debian:bookworm-slim
RUN groupadd --system --gid 999 vecdis \
    && useradd --system --uid 999 --gid vecdis --home-dir /data --no-create-home --shell /usr/sbin/nologin vecdis \
    && install --directory --owner=vecdis --group=vecdis --mode=0700 /data
COPY --from=builder /build/target/release/vecdis /usr/local/bin/vecdis
COPY --from=builder /build/runtime /usr/local/lib/vecdis
COPY --chmod=0755 conf/docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
COPY conf/vecdis.conf /etc/vecdis.conf
# The last line for an option wins.
RUN printf '\n# Set by the image:\nbind 0.0.0.0\nprotected-mode no\ndir /data\nonnxruntime-path /usr/local/lib/vecdis/libonnxruntime.so\n' >> /etc/vecdis.conf

USER vecdis
WORKDIR /data
VOLUME /data
EXPOSE 6379
STOPSIGNAL SIGTERM
# Healthy: it answers. With another port: docker run -e VECDIS_PORT=7000 vecdis --port 7000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "exec vecdis ping 127.0.0.1:${VECDIS_PORT:-6379}"]
ENTRYPOINT ["docker-entrypoint.sh"]
