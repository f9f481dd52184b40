#!/bin/sh
# Entry point of the image: without a configuration file among the arguments, the image's own is used.
set -eu
# Data files are for the server's user only.
umask 0077

case "${1:-}" in
    -v | --version | -h | --help) ;;
    '' | --*) set -- /etc/vecdis.conf "$@" ;;
esac
# The server takes this process's place, so that it gets the signals of docker stop.
exec vecdis "$@"
