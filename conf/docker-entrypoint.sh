#!/bin/sh
# Entry point of the image: options alone are put on top of the image's own configuration file; a file, a subcommand, a shell are
# taken as they are.
set -eu
# Data files are for the server's user only.
umask 0077

case "${1:-}" in
    -v | --version | -h | --help) ;;
    '' | --*) set -- /etc/vecdis.conf "$@" ;;
    sh | bash | vecdis) exec "$@" ;;
esac
# The server takes this process's place, so that it gets the signals of docker stop.
exec vecdis "$@"
