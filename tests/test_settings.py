from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway import settings
from gateway.core.errors import ConfigError
from gateway.settings import Settings

ROOT = Path(__file__).parent.parent
LEAST = "upstreams: {app: {url: http://127.0.0.1:9000}}\n"

INTERFACE = """\
listen: 127.0.0.1:8080              # several allowed; host:port or unix:/path; tls: {...} per listener
admin_listen: 127.0.0.1:9090        # /metrics /healthz /readyz, nothing else
public_url: http://127.0.0.1:8080   # what browsers see; also the issuer of assertions
trusted_proxies: []                 # nobody; CIDRs whose X-Forwarded-*/PROXY protocol is believed
upstreams:
  app: {url: http://127.0.0.1:9000}   # or endpoints: [...], health, tls, timeouts, retries, breaker
policies: policies/                 # a folder or a file
store:
  records: sqlite:data/sallyport.db   # or postgresql://…
  shared: memory                      # or redis://… rediss://… redis+sentinel://… redis+cluster://…
keys: data/keys                     # made on first start in the embedded default; or env / mounted files
identity: {local: {}}               # oidc: […], ldap: […], jwt: […], introspection: […], api_keys: {}
sessions: {idle: 1h, absolute: 24h, per_user: 5}
mfa: {totp: {issuer: Sallyport}, backup_codes: {}}   # sms, email, webauthn, trusted_devices, push
risk: {}                            # signals and weights; geoip: path to an mmdb
headers: {style: x-forwarded}       # or remote; assertion: {algorithm: ES256, lifetime: 60s}; signatures: {...}
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def read(text: str, **environ: str) -> Settings:
        (tmp_path / "config.yaml").write_text(text)
        return settings.load(tmp_path / "config.yaml", environ)

    return read


@pytest.fixture
def refused(load: Any, tmp_path: Path) -> Any:
    def find(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, **environ)
        return [str(problem).replace(f"{tmp_path}/config.yaml:", "") for problem in caught.value.problems]

    return find


def test_the_config_of_the_design_is_accepted_as_it_stands(load: Any, tmp_path: Path) -> None:
    read = load(INTERFACE)
    assert [str(one) for one in read.listen] == ["127.0.0.1:8080"]
    assert str(read.admin_listen) == "127.0.0.1:9090"
    assert read.upstreams["app"].url == "http://127.0.0.1:9000"
    assert read.policies == tmp_path / "policies"
    assert read.keys == tmp_path / "data" / "keys"
    assert read.store.records.get_secret_value() == f"sqlite:{tmp_path}/data/sallyport.db"
    assert (read.sessions.idle, read.sessions.absolute, read.sessions.per_user) == (3600.0, 86400.0, 5)


def test_everything_but_the_upstreams_has_a_default(load: Any) -> None:
    least, written = load(LEAST), load(INTERFACE)
    assert least == written
    assert (least.prefix, least.scheme) == ("/.sallyport/", "http")
    assert (least.request.head, least.request.target, least.request.headers, least.request.body) == (
        32768,
        8192,
        100,
        0,
    )
    assert (least.timeouts.head, least.timeouts.body, least.timeouts.idle) == (10.0, 30.0, 75.0)
    app = least.upstreams["app"]
    assert (app.host, app.port, app.connections) == ("127.0.0.1", 9000, 512)
    assert (app.timeouts.connect, app.timeouts.response, app.timeouts.idle) == (5.0, 60.0, 60.0)
    assert (least.mfa.factors, least.mfa.required_groups, least.mfa.enrol_within) == (
        ("totp", "backup_code"),
        ("admins",),
        300.0,
    )
    assert (least.headers.assertion.lifetime, least.interrupted.body, least.log.access) == (60.0, 65536, "-")


def test_our_own_config_is_good_with_and_without_its_environment() -> None:
    plain = settings.load(ROOT / "config.yaml", {})
    assert plain == settings.load(ROOT / "config.yaml", {"SALLYPORT_LISTEN": "127.0.0.1:8080"})
    environ = {
        "SALLYPORT_LISTEN": "127.0.0.1:1",
        "SALLYPORT_ADMIN_LISTEN": "127.0.0.1:2",
        "SALLYPORT_PUBLIC_URL": "https://app.example.com",
        "SALLYPORT_UPSTREAM": "http://127.0.0.1:3",
        "SALLYPORT_DATA": "/elsewhere",
    }
    read = settings.load(ROOT / "config.yaml", environ)
    assert (str(read.listen[0]), str(read.admin_listen), read.scheme) == ("127.0.0.1:1", "127.0.0.1:2", "https")
    assert read.upstreams["app"].port == 3
    assert read.keys == Path("/elsewhere/keys")
    assert read.store.records.get_secret_value() == "sqlite:/elsewhere/sallyport.db"


def test_settings_are_frozen(load: Any) -> None:
    read = load(LEAST)
    with pytest.raises(ValidationError):
        read.prefix = "/x/"
    with pytest.raises(ValidationError):
        read.sessions.idle = 1.0


def test_what_may_be_a_secret_is_never_shown(load: Any) -> None:
    read = load(LEAST + "store: {records: 'sqlite:${PLACE}'}\n", PLACE="/tmp/hunter2.db")
    assert "hunter2" not in repr(read) + str(read) + str(read.model_dump())
    assert "***" in repr(read.store)
    assert str(read.store.records) == "***"
    assert read.store.records.get_secret_value() == "sqlite:/tmp/hunter2.db"


def test_values_from_files_and_the_environment(load: Any, tmp_path: Path) -> None:
    (tmp_path / "issuer").write_text("Acme\n")
    read = load(
        'upstreams: {app: {url: "${APP}"}}\nmfa: {totp: {issuer: !file issuer}}\nsessions: {per_user: "${N:-3}"}\n',
        APP="http://app:1",
    )
    assert read.mfa.totp.issuer == "Acme"
    assert read.sessions.per_user == 3
    assert read.upstreams["app"].host == "app"


def test_which_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.yaml").write_text(LEAST + "prefix: /other/\n")
    (tmp_path / "config.yaml").write_text(LEAST + "prefix: /here/\n")
    monkeypatch.chdir(tmp_path)
    assert settings.load(None, {"SALLYPORT_CONFIG": str(tmp_path / "other.yaml")}).prefix == "/other/"
    assert settings.load(None, {}).prefix == "/here/"
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file .*--config"):
        settings.load(Path("gone.yaml"), {})


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("0.0.0.0:80", "0.0.0.0", 80, ""),
        ("'[::1]:8080'", "::1", 8080, ""),
        ("localhost:0", "localhost", 0, ""),
        ("unix:/run/s.sock", "", 0, "/run/s.sock"),
    ],
)
def test_where_to_listen(load: Any, text: str, host: str, port: int, path: str) -> None:
    (one,) = load(LEAST + f"listen: {text}\n").listen
    assert (one.host, one.port, one.path) == (host, port, path)
    assert str(one) == text.strip("'")


def test_several_listeners_and_no_admin(load: Any) -> None:
    read = load(LEAST + "listen: ['127.0.0.1:1', unix:/x]\nadmin_listen: null\n")
    assert [str(one) for one in read.listen] == ["127.0.0.1:1", "unix:/x"]
    assert read.admin_listen is None


def test_factors_can_be_left_out(load: Any) -> None:
    assert load(LEAST + "mfa: {backup_codes: null}\n").mfa.factors == ("totp",)
    assert load(LEAST + "mfa: {totp: null, backup_codes: null}\n").mfa.factors == ()
    assert load(LEAST + "mfa: {required_groups: []}\n").mfa.required_groups == ()


def test_trusted_proxies_are_networks(load: Any) -> None:
    read = load(LEAST + "trusted_proxies: [10.0.0.0/8, '2001:db8::/32', 192.0.2.7]\n")
    assert read.trusted_proxies == tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32")))


ONE_MISTAKE = [
    ("{}\n", "1: `upstreams` is missing"),
    ("upstreams: {}\n", "1: `upstreams` is empty"),
    ("upstreams: {app: {}}\n", "1: `upstreams.app.url` is missing"),
    ("upstreams: {app: http://x}\n", "1: `upstreams.app` must be a mapping"),
    ("upstreams: {'a b': {url: http://x}}\n", "1: `upstreams.a b` is not written right"),
    ("upstreams: {app: {url: x}}\n", "1: `upstreams.app.url`: not a URL; write http://host:port"),
    ("upstreams: {app: {url: 'https://x'}}\n", "1: `upstreams.app.url`: TLS to a service is not there yet"),
    ("upstreams: {app: {url: 'http://u:p@x'}}\n", "1: `upstreams.app.url`: a URL here holds no user name"),
    ("upstreams: {app: {url: 'http://x/y'}}\n", "1: `upstreams.app.url`: write scheme, host and port only"),
    ("upstreams: {app: {url: 'http://x:99999'}}\n", "1: `upstreams.app.url`: Port out of range"),
    ("upstreams: {app: {url: 'http://x', endpoints: []}}\n", "1: `upstreams.app.endpoints` is not there yet"),
    (LEAST + "listen: 8080\n", "2: `listen` must be a list"),
    (LEAST + "listen: []\n", "2: `listen` is empty"),
    (LEAST + "listen: 127.0.0.1\n", "2: `listen`: `127.0.0.1` is not an address to listen on"),
    (LEAST + "listen: '*:80'\n", "2: `listen`: `*:80` is not an address to listen on"),
    (LEAST + "listen: localhost:70000\n", "2: `listen`: `localhost:70000` is not an address to listen on"),
    (LEAST + "listen: unix:relative\n", "2: `listen`: a Unix socket needs an absolute path"),
    (LEAST + "listen: [{address: 'x:1', tls: {}}]\n", "2: `listen[1]`: TLS to clients is not there yet"),
    (LEAST + "public_url: app.example.com\n", "2: `public_url`: not a URL"),
    (LEAST + "public_url: https://a.example/app\n", "2: `public_url`: write scheme, host and port only"),
    (LEAST + "trusted_proxies: [0.0.0.0/0]\n", "2: `trusted_proxies[1]`: `0.0.0.0/0` would let everybody choose"),
    (LEAST + "trusted_proxies: ['::/0']\n", "2: `trusted_proxies[1]`: `::/0` would let everybody choose"),
    (LEAST + "trusted_proxies: [10.0.0.1/8]\n", "2: `trusted_proxies[1]`: `10.0.0.1/8` is not a network"),
    (LEAST + "trusted_proxies: 10.0.0.0/8\n", "2: `trusted_proxies` must be a list (write [a, b])"),
    (LEAST + "prefix: sallyport\n", "2: `prefix`: a prefix starts and ends with a slash"),
    (LEAST + "prefix: /\n", "2: `prefix`: a prefix starts and ends with a slash"),
    (LEAST + "prefix: /../\n", "2: `prefix`: a prefix starts and ends with a slash"),
    (LEAST + "prefix: /a b/\n", "2: `prefix`: a prefix starts and ends with a slash"),
    (LEAST + "store: {records: 'postgresql://u:p@h/d'}\n", "2: `store.records`: PostgreSQL is not there yet"),
    (LEAST + "store: {records: data.db}\n", "2: `store.records`: not a place for records"),
    (LEAST + "store: {shared: 'redis://:hunter2@x'}\n", "2: `store.shared` cannot be that (one of: memory)"),
    (LEAST + "identity: {oidc: []}\n", "2: `identity.oidc` is not there yet (`local` users for now)"),
    (LEAST + "mfa: {sms: {}}\n", "2: `mfa.sms` is not there yet"),
    (LEAST + "mfa: {totp: {isuer: x}}\n", "2: `mfa.totp.isuer` is not a known key (did you mean `issuer`?)"),
    (LEAST + "mfa: {totp: {issuer: 'a:b'}}\n", "2: `mfa.totp.issuer` is not written right"),
    (LEAST + "sessions: {idle: 2h, absolute: 1h}\n", "2: `sessions`: `idle` is longer than `absolute`"),
    (LEAST + "sessions: {idle: 60}\n", "2: `sessions.idle`: 60 is not a duration; write 60s"),
    (LEAST + "sessions: {per_user: 0}\n", "2: `sessions.per_user`: input should be greater than or equal to 1"),
    (LEAST + "sessions: {per_user: many}\n", "2: `sessions.per_user` must be a number"),
    (LEAST + "sessions: 1h\n", "2: `sessions` must be a mapping"),
    (LEAST + "risk: {weights: {agnt: 1}}\n", "2: `risk.weights.agnt` cannot be `agnt` (did you mean `agent`?)"),
    (LEAST + "risk: {weights: {agent: 2}}\n", "2: `risk.weights.agent`: input should be less than or equal to 1"),
    (LEAST + "headers: {style: x-forward}\n", "2: `headers.style` cannot be `x-forward` (did you mean `x-forwarded`?)"),
    (LEAST + "headers: {signatures: {}}\n", "2: `headers.signatures` is not there yet"),
    (LEAST + "headers: {assertion: {lifetime: 1s}}\n", "2: `headers.assertion.lifetime`: input should be greater"),
    (LEAST + "request: {head: big}\n", "2: `request.head`: not a size"),
    (LEAST + "timeouts: {head: 0s}\n", "2: `timeouts.head`: input should be greater than 0"),
    (LEAST + "publc_url: http://x\n", "2: `publc_url` is not a known key (did you mean `public_url`?)"),
    (LEAST + "keys: ${KEYS}\n", "2: the environment has no KEYS"),
    (LEAST + "keys: !file gone\n", "2: the file "),
    (LEAST + "prefix: /a/\nprefix: /b/\n", "3: `prefix` is given twice (the first is on line 2)"),
]


@pytest.mark.parametrize(("text", "said"), ONE_MISTAKE, ids=[said for _, said in ONE_MISTAKE])
def test_one_mistake_is_one_problem(refused: Any, text: str, said: str) -> None:
    found = refused(text)
    assert len(found) == 1, found
    assert found[0].startswith(said)
    assert "hunter2" not in found[0]


def test_every_mistake_is_told_at_once(refused: Any) -> None:
    text = "listen: x\nupstreams: {app: {url: y}}\npolices: p\nsessions:\n  idle: never\n  per_user: 0\n"
    found = refused(text + "keys: ${K}\nkeys: b\n")
    assert [line.split(":")[0] for line in found] == ["1", "2", "3", "5", "6", "7", "8"]
