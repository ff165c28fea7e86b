# The gateway in an image: nothing but Python, the wheel and what it needs; no shell tools of ours, no root.
#
#   docker run --read-only --tmpfs /tmp -v sallyport:/var/lib/sallyport -p 8080:8080 \
#     -e SALLYPORT_UPSTREAM=http://app:9000 -e SALLYPORT_PUBLIC_URL=http://localhost:8080 sallyport

ARG PYTHON=3.12

FROM python:${PYTHON} AS build
WORKDIR /source
COPY setup.py pyproject.toml README.md LICENSE ./
COPY gateway gateway
# Compiled (setup.py says what and why): types are checked against the libraries themselves, so those come first.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[email,geoip,postgresql,redis,sms,webauthn,compile]' \
 && pip wheel --no-cache-dir --wheel-dir /wheels '.[email,geoip,postgresql,redis,sms,webauthn]' \
 && rm /wheels/sallyport-*.whl \
 && SALLYPORT_COMPILE=1 pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv /opt/sallyport \
 && /opt/sallyport/bin/pip install --no-cache-dir --no-index --find-links /wheels 'sallyport[email,geoip,postgresql,redis,sms,webauthn]' \
 && /opt/sallyport/bin/pip uninstall --yes pip

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="Sallyport" \
      org.opencontainers.image.description="Identity gateway: sign-in, limits, risk and step-up in front of services" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/sallyport /opt/sallyport
COPY config.yaml /etc/sallyport/config.yaml
COPY policies /etc/sallyport/policies
RUN install --directory --owner=65532 --group=65532 --mode=0700 /var/lib/sallyport

ENV PATH=/opt/sallyport/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SALLYPORT_CONFIG=/etc/sallyport/config.yaml \
    SALLYPORT_LISTEN=0.0.0.0:8080 \
    SALLYPORT_ADMIN_LISTEN=0.0.0.0:9090 \
    SALLYPORT_DATA=/var/lib/sallyport

WORKDIR /etc/sallyport
USER 65532:65532
VOLUME /var/lib/sallyport
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9090/healthz', timeout=2)"]
ENTRYPOINT ["sallyport"]
CMD ["run"]
