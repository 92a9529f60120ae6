"""The page on which a browser shows its token."""

FORM = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Hostler: read encrypted payloads</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 34em; margin: 4em auto; padding: 0 1em }
  input { font: inherit; width: 100%; box-sizing: border-box; padding: .4em }
  button { font: inherit; margin-top: 1em; padding: .4em 1.2em }
</style>
<h1>Read encrypted payloads</h1>
<p>With a token, Temporal's UI shows in this browser what Hostler has encrypted, for twelve hours.</p>
<form method="post" action="login">
  <label>Token <input type="password" name="token" autocomplete="current-password" autofocus required></label>
  <button>Log in</button>
</form>
<p>The UI sends the login along when its server is configured to, or when its dialog for the codec server has this
page's address, and says to use the browser's setting and to include cross-origin credentials.</p>
</html>
"""
