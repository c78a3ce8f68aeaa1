"""Blueprints of providers on applications: names, prefixes, iteration."""

from __future__ import annotations

import pytest
from flask import Blueprint, Flask, g

from smsqueue.gateway import Gateway
from smsqueue.providers.base.webhook_blueprints import Blueprints, wrap
from tests.receivers.plugin import HELLO, Heard, PluginProvider

LIMIT = 1000


def test_the_same_gateway_under_several_prefixes_and_in_several_applications(
    gateway: Gateway, heard: Heard
) -> None:
    for _ in range(2):
        app = Flask(__name__)
        for prefix in ("/a", "/b"):
            app.register_blueprint(wrap(gateway.get_provider("main"), LIMIT), url_prefix=prefix)
        client = app.test_client()
        assert client.post("/a/im", json=HELLO).status_code == 200
        assert client.post("/b/im", json=HELLO).status_code == 200
    assert len(heard) == 4


def test_a_provider_name_with_a_dot(gateway: Gateway) -> None:
    provider = gateway.add_provider("main.eu", PluginProvider)
    app = Flask(__name__)
    app.register_blueprint(wrap(provider, LIMIT), url_prefix="/x")
    assert app.test_client().post("/x/blind").status_code == 200


def test_a_provider_that_cannot_receive(gateway: Gateway) -> None:
    with pytest.raises(NotImplementedError):
        wrap(gateway.get_provider("null"), LIMIT)


def test_a_view_finds_its_provider_also_before_its_own_functions_run(gateway: Gateway) -> None:
    seen: list[str] = []

    class Own(PluginProvider):
        def make_receiver_blueprint(self) -> Blueprint:
            blueprint = Blueprint("own", __name__)
            blueprint.before_request(lambda: seen.append(g.provider.name))
            blueprint.add_url_rule("/", "root", lambda: "here")
            return blueprint

    app = Flask(__name__)
    app.register_blueprint(wrap(gateway.add_provider("own", Own), LIMIT), url_prefix="/own")
    assert app.test_client().get("/own/").text == "here"
    assert seen == ["own"]


def test_blueprints_iterate_as_pairs_and_can_be_copied_as_a_dict(gateway: Gateway) -> None:
    main, other = (wrap(gateway.get_provider(name), LIMIT) for name in ("main", "other"))
    blueprints = Blueprints(main=main, other=other)
    pairs: list[tuple[str, Blueprint]] = [*blueprints]
    assert pairs == [("main", main), ("other", other)]
    assert dict(blueprints) == {**blueprints} == {"main": main, "other": other}


def test_the_manuals_loop_and_the_original_codes(gateway: Gateway, heard: Heard) -> None:
    app = Flask(__name__)
    for name, blueprint in gateway.receiver_blueprints():
        app.register_blueprint(blueprint, url_prefix="/sms/" + name)
    for name, blueprint in gateway.receiver_blueprints().items():
        app.register_blueprint(blueprint, url_prefix="/old/" + name)
    gateway.receiver_blueprints_register(app, "/24fb0d6963f/")
    gateway.receiver_blueprints_register(app)
    client = app.test_client()
    for prefix in ("/sms", "/old", "/24fb0d6963f", ""):
        assert client.post(f"{prefix}/main/im", json=HELLO).status_code == 200
        assert client.post(f"{prefix}/null/im", json=HELLO).status_code == 404
    assert len(heard) == 4


def test_the_gateways_limit_holds(gateway: Gateway) -> None:
    app = Flask(__name__)
    app.register_blueprint(gateway.receiver_blueprint_for("main"), url_prefix="/x")
    limit = gateway.settings.max_webhook
    assert app.test_client().post("/x/blind", data=b"x" * limit).status_code == 200
    assert app.test_client().post("/x/blind", data=b"x" * (limit + 1)).status_code == 413
