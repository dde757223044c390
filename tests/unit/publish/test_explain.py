"""What went wrong with a server, in words."""

import httpx
import pytest

from tomogan_bluesky.errors import PublishError
from tomogan_bluesky.publish.explain import explain_connection, explain_request, in_words

REQUEST = httpx.Request("GET", "http://localhost/api/v1/?api_key=a5ecre7")


def refusal(status):
    response = httpx.Response(status, request=REQUEST)
    return httpx.HTTPStatusError(f"{status} for {REQUEST.url}", request=REQUEST, response=response)


def test_the_key_is_never_told(monkeypatch):
    assert "a5ecre7" not in in_words(refusal(401))
    error = ValueError("cannot use the key a5ecre7 here")
    monkeypatch.delenv("TILED_API_KEY", raising=False)
    assert "a5ecre7" in in_words(error)  # nothing says that it is one
    monkeypatch.setenv("TILED_API_KEY", "a5ecre7")
    assert in_words(error) == "ValueError: cannot use the key … here"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (refusal(401), "TILED_API_KEY is a key that may"),
        (refusal(409), "in the catalog already"),
        (refusal(500), "log of the server"),
        (httpx.ReadTimeout("too slow", request=REQUEST), "see that the server runs"),
    ],
)
def test_a_failed_request_says_what_to_do(error, advice):
    with (
        pytest.raises(PublishError, match=f"expected Tiled to answer, got .*{advice}"),
        explain_request("Tiled to answer"),
    ):
        raise error


def test_mistakes_of_ours_are_not_explained_away():
    with pytest.raises(KeyError), explain_request("Tiled to answer"):
        raise KeyError
    with pytest.raises(KeyError), explain_connection("http://localhost"):
        raise KeyError
