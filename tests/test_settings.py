from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway import settings
from gateway.core.errors import ConfigError
from gateway.settings import Settings
from gateway.store import redis_where
from gateway.store.redis_where import Where

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
mfa: {totp: {issuer: Sallyport}, backup_codes: {}}   # webauthn, sms, email, trusted_devices
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
    assert str(read.upstreams["app"].url) == "http://127.0.0.1:9000"
    assert read.policies == tmp_path / "policies"
    assert read.keys == tmp_path / "data" / "keys"
    assert read.store.records.place.url == f"sqlite:{tmp_path}/data/sallyport.db"
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
    (place,) = app.places
    assert (place.host, place.port, place.path, place.tls, app.connections) == ("127.0.0.1", 9000, "", False, 512)
    assert (app.timeouts.connect, app.timeouts.response, app.timeouts.idle, app.timeouts.keep) == (5, 60, 60, 60)
    assert (app.health, app.retries, app.breaker, app.tls, app.resolve) == (None, None, None, None, 30.0)
    assert (app.queue.length, app.queue.wait) == (512, 1.0)
    assert (least.mfa.factors, least.mfa.required_groups, least.mfa.enrol_within) == (
        ("totp", "backup_code"),
        ("admins",),
        300.0,
    )
    assert (least.headers.assertion.lifetime, least.interrupted.body, least.log.access) == (60.0, 1048576, "-")


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
    assert read.upstreams["app"].places[0].port == 3
    assert read.keys == Path("/elsewhere/keys")
    assert read.store.records.place.url == "sqlite:/elsewhere/sallyport.db"


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
    assert read.store.records.place.url == "sqlite:/tmp/hunter2.db"
    read = load(LEAST + "store: {records: {url: 'postgresql://ann@db/x', password: hunter2}}\n")
    assert "hunter2" not in repr(read) + str(read) + str(read.model_dump()) + repr(read.store.records.place)
    assert str(read.store.records.place) == "x at db:5432"
    read = load(LEAST + "store: {records: 'postgresql://ann:hunter2@db/x'}\n")
    assert "hunter2" not in repr(read) + str(read) + str(read.model_dump()) + repr(read.store.records.place)


def test_values_from_files_and_the_environment(load: Any, tmp_path: Path) -> None:
    (tmp_path / "issuer").write_text("Acme\n")
    read = load(
        'upstreams: {app: {url: "${APP}"}}\nmfa: {totp: {issuer: !file issuer}}\nsessions: {per_user: "${N:-3}"}\n',
        APP="http://app:1",
    )
    assert read.mfa.totp.issuer == "Acme"
    assert read.sessions.per_user == 3
    assert read.upstreams["app"].places[0].host == "app"


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
        ("'[fe80::1%eth0]:8080'", "fe80::1%eth0", 8080, ""),
        ("unix:/run/s.sock", "", 0, "/run/s.sock"),
        ("systemd", "", 0, ""),
        ("fd:3", "", 0, ""),
    ],
)
def test_where_to_listen(load: Any, text: str, host: str, port: int, path: str) -> None:
    for listen in (text, f"{{address: {text}}}", f"[{{address: {text}, proxy_protocol: false}}]"):
        (one,) = load(LEAST + f"listen: {listen}\n").listen
        assert (one.address.host, one.address.port, one.address.path) == (host, port, path)
        assert (one.tls, one.proxy_protocol, one.mode) == (None, False, "0660")
        assert str(one) == text.strip("'")


def test_several_listeners_and_no_admin(load: Any) -> None:
    read = load(LEAST + "listen: ['127.0.0.1:1', unix:/x]\nadmin_listen: null\n")
    assert [str(one) for one in read.listen] == ["127.0.0.1:1", "unix:/x"]
    assert read.admin_listen is None


def test_a_service_at_several_places(load: Any, tmp_path: Path) -> None:
    read = load("""\
upstreams:
  app:
    endpoints: ['http://a:9000', 'https://b', 'https://[::1]:8443/', unix:/run/app.sock]
    balance: consistent_hash
    hash: cookie:sid
    health: {path: /up, interval: 3s, timeout: 1s, healthy: 1, unhealthy: 2, expect: 200}
    ejection: {failures: 3, for: 20s, at_most: 30%, return_over: 1m}
    retries: {attempts: 3, budget: 10%, on: [connect, 503]}
    breaker: {failures: 25%, of: 40, open_for: 2s}
    timeouts: {connect: 1s, response: 2s, idle: 3s, keep: 4s}
    queue: {length: 7, wait: 3s}
    resolve: 10s
    tls: {ca: ca.pem, certificate: me.pem, key: key.pem, server_name: app.internal, verify: insecure}
""").upstreams["app"]
    assert [(one.url, one.host, one.port, one.path, one.tls) for one in read.places] == [
        ("http://a:9000", "a", 9000, "", False),
        ("https://b", "b", 443, "", True),
        ("https://[::1]:8443", "::1", 8443, "", True),
        ("unix:/run/app.sock", "", 0, "/run/app.sock", False),
    ]
    assert (read.balance, read.hash, read.health.expect) == ("consistent_hash", "cookie:sid", (200, 200))
    assert read.ejection.model_dump() == {"failures": 3, "for_": 20.0, "at_most": 0.3, "return_over": 60.0}
    assert (read.retries.budget, read.retries.on, read.breaker.failures) == (0.1, ("connect", "503"), 0.25)
    assert (read.tls.ca, read.tls.verify) == (tmp_path / "ca.pem", "insecure")


def test_the_operator_says_which_factor_comes_first(load: Any) -> None:
    assert load(LEAST).mfa.factors == ("totp", "backup_code")
    assert load(LEAST + "mfa: {order: [backup_code, sms, totp]}\n").mfa.factors == ("backup_code", "totp")
    with pytest.raises(ConfigError, match="order"):
        load(LEAST + "mfa: {order: [password]}\n")


def test_factors_can_be_left_out(load: Any) -> None:
    assert load(LEAST + "mfa: {backup_codes: null}\n").mfa.factors == ("totp",)
    assert load(LEAST + "mfa: {totp: null, backup_codes: null}\n").mfa.factors == ()
    assert load(LEAST + "mfa: {required_groups: []}\n").mfa.required_groups == ()


def test_trusted_proxies_are_networks(load: Any) -> None:
    read = load(LEAST + "trusted_proxies: [10.0.0.0/8, '2001:db8::/32', 192.0.2.7]\n")
    assert read.trusted_proxies == tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32")))


def test_everybody_is_trusted_in_plain_words_only(load: Any) -> None:
    plainly = "{network: %s, i_trust_everybody: true}"
    read = load(LEAST + f"trusted_proxies: [unix, {plainly % '0.0.0.0/0'}, {plainly % repr('::/0')}, 10.0.0.0/8]\n")
    four, six, ten = map(ipaddress.ip_network, ("0.0.0.0/0", "::/0", "10.0.0.0/8"))
    assert read.trusted_proxies == ("unix", four, six, ten)


def test_workers_share_what_can_be_shared(load: Any) -> None:
    assert load(LEAST + "store: {records: none, shared: none}\nworkers: 4\n").workers == 4


def test_workers_share_a_redis(load: Any) -> None:
    assert load(LEAST + "store: {shared: 'redis://cache'}\nworkers: 4\n").workers == 4


def test_a_shared_store_is_a_url_or_a_mapping_and_hides_its_passwords(load: Any, tmp_path: Path) -> None:
    short = load(LEAST + "store: {shared: 'rediss://ann:hunter%402@[::1]:7/3'}\n").store
    assert short.redis == Where(
        "rediss", (redis_where.Address("::1", 7),), database=3, username="ann", password="hunter@2"
    )
    assert str(short.redis) == "rediss://[::1]:7/3"
    entries = "url: 'rediss+sentinel://one,two:7/main', password: hunter2, sentinel_password: hunter3, ca: a.pem"
    long = load(LEAST + f"store: {{shared: {{{entries}, prefix: 'x:'}}}}\n").store
    assert long.redis == Where(
        "rediss+sentinel",
        (redis_where.Address("one", 26379), redis_where.Address("two", 7)),
        "main",
        password="hunter2",
        sentinel_password="hunter3",
        ca=tmp_path / "a.pem",
        prefix="x:",
    )
    for store in (short, long):
        assert "hunter" not in f"{store!r} {store} {store.redis!r} {store.redis} {store.model_dump_json()}"


ONE_MISTAKE = [
    ("{}\n", "1: `upstreams` is missing"),
    ("upstreams: {}\n", "1: `upstreams` is empty"),
    ("upstreams: {app: {}}\n", "1: `upstreams.app`: no `url`; write http://host:port, or several as `endpoints`"),
    ("upstreams: {app: http://x}\n", "1: `upstreams.app` must be a mapping"),
    ("upstreams: {'a b': {url: http://x}}\n", "1: `upstreams.a b` is not written right"),
    ("upstreams: {app: {url: x}}\n", "1: `upstreams.app.url`: not a URL; write http://host:port"),
    ("upstreams: {app: {url: 'http://u:p@x'}}\n", "1: `upstreams.app.url`: a URL here holds no user name"),
    ("upstreams: {app: {url: 'http://x/y'}}\n", "1: `upstreams.app.url`: write scheme, host and port only"),
    ("upstreams: {app: {url: 'http://x:99999'}}\n", "1: `upstreams.app.url`: Port out of range"),
    ("upstreams: {app: {url: 'http://x', endpoints: ['http://y']}}\n", "1: `upstreams.app`: either `url` or"),
    ("upstreams: {app: {endpoints: []}}\n", "1: `upstreams.app`: no `url`"),
    ("upstreams: {app: {endpoints: ['http://x', 'http://x/']}}\n", "1: `upstreams.app.endpoints`: `http://x` is given"),
    ("upstreams: {app: {url: 'unix:app.sock'}}\n", "1: `upstreams.app.url`: a Unix socket needs an absolute path"),
    ("upstreams: {app: {url: 'http://x', tls: {}}}\n", "1: `upstreams.app`: `tls` belongs to an https:// URL"),
    (
        "upstreams: {app: {url: 'https://x', tls: {verify: false}}}\n",
        "1: `upstreams.app.tls.verify`: write `verify: insecure` if anybody may pretend",
    ),
    ("upstreams: {app: {url: 'https://x', tls: {key: k.pem}}}\n", "1: `upstreams.app.tls`: a `key` without a"),
    ("upstreams: {app: {url: 'http://x', hash: user}}\n", "1: `upstreams.app`: `hash` belongs to `balance: consistent"),
    (
        "upstreams: {app: {url: 'http://x', balance: consistent_hash, hash: ip}}\n",
        "1: `upstreams.app.hash`: `ip` is nothing to tell by",
    ),
    ("upstreams: {app: {url: 'http://x', balance: random}}\n", "1: `upstreams.app.balance` cannot be `random`"),
    ("upstreams: {app: {url: 'http://x', health: {path: 'x y'}}}\n", "1: `upstreams.app.health.path` is not written"),
    ("upstreams: {app: {url: 'http://x', health: {expect: 400-200}}}\n", "1: `upstreams.app.health.expect`: not a"),
    ("upstreams: {app: {url: 'http://x', retries: {budget: 20}}}\n", "1: `upstreams.app.retries.budget`: not a share"),
    ("upstreams: {app: {url: 'http://x', retries: {on: [500]}}}\n", "1: `upstreams.app.retries.on[1]` cannot be `500`"),
    ("upstreams: {app: {url: 'http://x', breaker: {failures: 0%}}}\n", "1: `upstreams.app.breaker.failures`: input"),
    ("upstreams: {app: {url: 'http://x', timeouts: {connect: 0s}}}\n", "1: `upstreams.app.timeouts.connect`: input"),
    (LEAST + "listen: 8080\n", "2: `listen` must be a list"),
    (LEAST + "listen: []\n", "2: `listen` is empty"),
    (LEAST + "listen: 127.0.0.1\n", "2: `listen`: `127.0.0.1` is not an address to listen on"),
    (LEAST + "listen: '*:80'\n", "2: `listen`: `*:80` is not an address to listen on"),
    (LEAST + "listen: localhost:70000\n", "2: `listen`: `localhost:70000` is not an address to listen on"),
    (LEAST + "listen: unix:relative\n", "2: `listen`: a Unix socket needs an absolute path"),
    (LEAST + "listen: [{address: 'x:1', tls: {}}]\n", "2: `listen[1].tls`: write either `certificate` and `key`"),
    (LEAST + "listen: {address: 'x:1', tls: {}}\n", "2: `listen.tls`: write either `certificate` and `key`"),
    (LEAST + "listen: {tls: {certificate: c, key: k}}\n", "2: `listen.address` is missing"),
    (
        LEAST + "listen: {address: 'x:1', tls: {certificate: c}}\n",
        "2: `listen.tls`: `certificate` and `key` go together",
    ),
    (
        LEAST + "listen: {address: 'x:1', tls: {certificate: c, key: k, certificates: [{certificate: c, key: k}]}}\n",
        "2: `listen.tls`: write either",
    ),
    (
        LEAST + "listen: {address: 'x:1', tls: {certificate: c, key: k, client_ca: a}}\n",
        "2: `listen.tls`: `client_ca` goes with",
    ),
    (
        LEAST + "listen: {address: 'x:1', tls: {certificate: c, key: k, client_certificates: required}}\n",
        "2: `listen.tls`: `client_ca` goes with",
    ),
    (
        LEAST + "listen: {address: 'x:1', tls: {certificate: c, key: k, minimum: '1.1'}}\n",
        "2: `listen.tls.minimum` cannot be `1.1` (",
    ),
    (
        LEAST + "listen: {address: 'x:1', proxy_protcol: true}\n",
        "2: `listen.proxy_protcol` is not a known key (did you",
    ),
    (LEAST + "listen: {address: unix:/s, mode: '0999'}\n", "2: `listen.mode` is not written right"),
    (LEAST + "listen: {address: unix:/s, mode: 0660}\n", "2: `listen.mode` must be text (put it in quotes)"),
    (LEAST + "admin_listen: systemd\n", "2: `admin_listen`: write host:port or unix:/path"),
    (LEAST + "workers: 0\n", "2: `workers`: input should be greater than or equal to 1"),
    (LEAST + "workers: 2\n", "2: `workers`: 2 workers would each count by themselves"),
    (
        LEAST + "listen: 'x:0'\nstore: {records: none, shared: none}\nworkers: 2\n",
        "4: `workers`: workers cannot share port 0",
    ),
    (LEAST + "trusted_proxies: [0.0.0.0/1, 128.0.0.0/1]\n", "2: `trusted_proxies`: together these are `0.0.0.0/0`"),
    (LEAST + "trusted_proxies: ['::/1', '8000::/1']\n", "2: `trusted_proxies`: together these are `::/0`"),
    (LEAST + "trusted_proxies: [{network: 0.0.0.0/0}]\n", "2: `trusted_proxies[1].i_trust_everybody` is missing"),
    (
        LEAST + "trusted_proxies: [{network: 0.0.0.0/0, i_trust_everybody: false}]\n",
        "2: `trusted_proxies[1].i_trust_everybody`",
    ),
    (LEAST + "trusted_proxies: [UNIX]\n", "2: `trusted_proxies[1]`: `UNIX` is not a network"),
    (LEAST + "trusted_proxies: [8]\n", "2: `trusted_proxies[1]`"),
    (LEAST + "forwarded_header: both\n", "2: `forwarded_header` cannot be `both` (one of: x-forwarded, forwarded)"),
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
    (LEAST + "store: {records: 'postgres://u:p@h/d'}\n", "2: `store.records`: not a place for records"),
    (LEAST + "store: {records: 'postgresql://u:p@h'}\n", "2: `store.records`: the URL names no database"),
    (LEAST + "store: {records: 'postgresql://h/d'}\n", "2: `store.records`: the URL names no user"),
    (LEAST + "store: {records: 'postgresql://u:p@/d'}\n", "2: `store.records`: the URL names no host"),
    (LEAST + "store: {records: 'postgresql://u:p/w@h/d'}\n", "2: `store.records`: the URL cannot be read"),
    (LEAST + "store: {records: 'postgresql://u:p#w@h/d'}\n", "2: `store.records`: the URL cannot be read"),
    (LEAST + "store: {records: 'postgresql://u@h:0/d'}\n", "2: `store.records`: the URL has a host that cannot"),
    (LEAST + "store: {records: 'postgresql://u@h/d?sslmode=prefer'}\n", "2: `store.records`: sslmode is one of"),
    (LEAST + "store: {records: 'postgresql://u@h/d?x=1'}\n", "2: `store.records`: after its `?` the URL may hold"),
    (
        LEAST + "store: {records: {url: 'postgresql://u:p@h/d', password: q}}\n",
        "2: `store.records`: write the password",
    ),
    (
        LEAST + "store: {records: {url: 'postgresql://u@h/d', key: k}}\n",
        "2: `store.records`: `certificate` and `key` go",
    ),
    (LEAST + "store: {records: {url: 'sqlite:x.db', ca: c}}\n", "2: `store.records`: `sqlite:` is a file"),
    (
        LEAST + "store: {records: {url: 'postgresql://u@h/d?sslmode=disable', ca: c}}\n",
        "2: `store.records`: `sslmode=disable` does without",
    ),
    (LEAST + "store: {records: {password: q}}\n", "2: `store.records.url` is missing"),
    (LEAST + "store: {records: 7}\n", "2: `store.records`"),
    (LEAST + "store: {records: data.db}\n", "2: `store.records`: not a place for records"),
    (LEAST + "store: {shared: 'reds://:hunter2@x'}\n", "2: `store.shared`: not the URL of a Redis"),
    (LEAST + "store: {shared: 'redis://x?ssl=1'}\n", "2: `store.shared`: a URL of a Redis has no `?`"),
    (
        LEAST + "store: {shared: {url: 'redis://x', sentinel_password: hunter2}}\n",
        "2: `store.shared`: `sentinel_username` and `sentinel_password` belong to redis+sentinel://",
    ),
    (LEAST + "store: {shared: {url: 'redis://x', username: ann}}\n", "2: `store.shared`: a `username` without"),
    (LEAST + "store: {shared: {url: 'redis://x', ca: a.pem}}\n", "2: `store.shared`: `ca`, `certificate` and `key`"),
    (LEAST + "store: {shared: {url: 'rediss://x', key: a.pem}}\n", "2: `store.shared`: a `key` without a"),
    (LEAST + "store: {shared: {url: 'redis://x', prefix: 'a b'}}\n", "2: `store.shared.prefix` is not written right"),
    (LEAST + "identity: {oidc: []}\n", "2: `identity.oidc` is not there yet (`local` users for now)"),
    (LEAST + "mfa: {push: {}}\n", "2: `mfa.push` is not there yet"),
    (LEAST + "mfa: {sms: {}}\n", "2: `mfa`: nobody carries the codes of `sms`; name a sender in `notify.sms`"),
    (
        LEAST + "mfa: {email: {counts_as_second_factor: true}}\nnotify: {sms: [{console: {}}]}\n",
        "2: `mfa`: nobody carries the codes of `email`; name a sender in `notify.email`",
    ),
    (LEAST + "mfa: {email: {}}\n", "2: `mfa.email.counts_as_second_factor` is missing"),
    (
        LEAST + "mfa: {email: {counts_as_second_factor: false}}\n",
        "2: `mfa.email.counts_as_second_factor`: write `counts_as_second_factor: true`, or leave",
    ),
    (
        LEAST + "mfa: {email: {counts_as_second_factor: yes please}}\n",
        "2: `mfa.email.counts_as_second_factor`: write `counts_as_second_factor: true`",
    ),
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


KEYS = """\
upstreams: {{app: {{url: "http://127.0.0.1:9000"}}}}
public_url: "{url}"
mfa: {{webauthn: {{{words}}}}}
"""


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://App.Example.com:443/", "https://app.example.com"),
        ("https://app.example.com:8443", "https://app.example.com:8443"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://app.localhost:80", "http://app.localhost"),
    ],
)
def test_security_keys_are_bound_to_the_public_url(load: Any, url: str, origin: str) -> None:
    read = load(KEYS.format(url=url, words=""))
    assert read.origin == origin
    assert read.mfa.factors == ("webauthn", "totp", "backup_code")


@pytest.mark.parametrize(
    ("url", "words", "said"),
    [
        ("http://127.0.0.1:8080", "", "needs a `public_url` with a name"),
        ("https://[2001:db8::1]", "", "needs a `public_url` with a name"),
        ("http://app.example.com", "", "that begins with https://"),
        ("https://bücher.example", "", "xn--bcher-kva.example"),
        ("https://a.example", "attestation: listed", "needs `aaguids`, and `roots`"),
        ("https://a.example", "aaguids: [2fc0579f-8113-47ea-b116-bb5a8db9202a]", "count with `attestation: listed`"),
        ("https://a.example", "attestation: listed, roots: x.pem, aaguids: [yubikey]", "is not an AAGUID"),
        ("https://a.example", "user_verification: perhaps", "cannot be `perhaps`"),
    ],
)
def test_security_keys_where_they_cannot_work(refused: Any, url: str, words: str, said: str) -> None:
    found = refused(KEYS.format(url=url, words=words))
    assert any(said in one for one in found), found


def test_who_must_have_a_second_factor(load: Any) -> None:
    require = "  - {groups: [finance], grace: 14d}\n  - {users: [Ann], factors: [totp]}\n  - {tenants: [default]}\n"
    demands = load(LEAST + f"mfa:\n  require:\n{require}").mfa.demands
    assert [one.grace for one in demands] == [0.0, 14 * 86400.0, 0.0, 0.0]
    assert [one.names for one in demands] == [
        ("group:admins",), ("group:finance",), ("user:ann totp",), ("tenant:default",)
    ]  # fmt: skip
    assert load(LEAST + "mfa: {totp: null, backup_codes: null}\n").mfa.demands == ()


@pytest.mark.parametrize(
    ("mfa", "words"),
    [
        ("{require: [{grace: 7d}]}", "this is about nobody"),
        ("{require: [{groups: [a], factors: [backup_code]}]}", "cannot be set up"),
        ("{require: [{groups: [a], factors: [webauthn]}]}", "cannot be set up; use totp"),
        ("{totp: null, require: [{groups: [a]}]}", "none that could be set up"),
        ("{require: [{groups: [a], grace: 400d}]}", "grace"),
        ("{enrol_within: 6m}", "enrol_within"),
    ],
)
def test_a_demand_nobody_could_meet(load: Any, mfa: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(LEAST + f"mfa: {mfa}\n")
    assert words in str(caught.value)
