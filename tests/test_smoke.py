def test_sign_in(api):
    tokens = api.signed_in()
    assert api.me(tokens["access_token"]).status_code == 200
