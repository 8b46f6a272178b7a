"""Signatures, against the example of the specification."""

import base64

from app.webhooks import signing


def test_message_is_signed_as_the_specification_shows() -> None:
    found = signing.headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        at=1614265330,
    )

    assert found == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_secrets_are_new_each_time_and_of_the_form_that_receivers_know() -> None:
    secrets = {signing.new_secret() for _ in range(10)}

    assert len(secrets) == 10
    assert {len(base64.b64decode(secret.removeprefix("whsec_"))) for secret in secrets} == {32}
