lock:
	PIP_CONFIG_FILE=/dev/null env -u PIP_FIND_LINKS pip-compile
