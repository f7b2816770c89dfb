"""The settings that Celery gets: known names only, URLs as Celery spells them, TLS verified."""

from __future__ import annotations

import ssl

import pytest
from celery import Celery
from celery.app.defaults import DEFAULTS

from config.celery import beat_schedule, celery_settings, celery_url, tls_options
from config.settings import Settings

UNLISTED = {"redis_backend_health_check_interval"}
"""Read by Celery 5.7's Redis backend, missing in its table of defaults."""


def test_every_setting_is_one_that_celery_knows() -> None:
    assert set(celery_settings(Settings())) - set(DEFAULTS) == UNLISTED


def test_results_are_kept_as_long_as_records() -> None:
    settings = Settings(retention_days=2)
    values = celery_settings(settings)
    assert values["result_expires"] == values["result_failure_expires"] == settings.retention_s == 172_800


@pytest.mark.parametrize(
    ("given", "spelt"),
    [
        ("redis://:pw@h:6379/3", "redis://:pw@h:6379/3"),
        ("unix:///run/redis.sock?db=4", "redis+socket:///run/redis.sock?virtual_host=4"),
        ("unix://:pw@/run/redis.sock", "redis+socket://:pw@/run/redis.sock"),
        ("redis+socket:///run/redis.sock?virtual_host=4", "redis+socket:///run/redis.sock?virtual_host=4"),
        ("rediss://h:1/2?ssl_ca_certs=/ca&ssl_cert_reqs=required", "rediss://h:1/2"),
        ("sentinel://h:26379/1;sentinel://i:26379/1", "sentinel://h:26379/1;sentinel://i:26379/1"),
    ],
)
def test_urls_as_celery_spells_them(given: str, spelt: str) -> None:
    assert celery_url(given) == spelt


@pytest.mark.parametrize("url", ["redis://h/0", "unix:///s", "sentinel://h:1"])
def test_no_tls_options_without_tls(url: str) -> None:
    assert tls_options(url) is None


def test_tls_verifies_the_server_unless_told_otherwise() -> None:
    assert tls_options("rediss://h/0") == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert tls_options("rediss://h/0?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false") == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }
    with pytest.raises(ValueError, match="ssl_cert_reqs"):
        tls_options("rediss://h/0?ssl_cert_reqs=maybe")


@pytest.mark.parametrize("url", ["redis://h:6379/5", "rediss://h:6379/5", "redis+socket:///s?virtual_host=5"])
def test_broker_and_results_use_the_same_database(url: str) -> None:
    app = Celery("settings", set_as_current=False)
    app.conf.update(celery_settings(Settings(broker_url=url)))
    assert app.connection().virtual_host in ("5", "/")  # a unix socket's is read by the channel, from the URL
    assert app.backend.connparams["db"] == 5


def test_the_sentinels_master_is_named_on_both_sides() -> None:
    values = celery_settings(Settings(broker_url="sentinel://h:26379", sentinel_master="queue"))
    for side in ("broker_transport_options", "result_backend_transport_options"):
        options = values[side]
        assert isinstance(options, dict)
        assert options["master_name"] == "queue"


def test_stale_periodic_messages_expire_but_not_because_of_clocks_a_minute_apart() -> None:
    for entry in beat_schedule(Settings(reconcile_period_s=1.0)).values():
        options = entry["options"]
        assert isinstance(options, dict)
        assert options["expires"] >= 60
