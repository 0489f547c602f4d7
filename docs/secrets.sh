# Makes ./secrets: the passwords of docker-compose.yml and the URLs that hold them. What exists stays as it is.
set -eu
umask 022
mkdir -p secrets
chmod 700 secrets # the folder keeps others out; the files must be readable by the users inside the containers

fresh() {
    "${PYTHON:-python3}" -c 'import secrets; print(secrets.token_hex(32))'
}

keep() { # keep FILE TEXT
    [ -e "secrets/$1" ] || printf '%s\n' "$2" >"secrets/$1"
}

keep broker_password "$(fresh)"
keep database_password "$(fresh)"
keep broker_url "redis://:$(cat secrets/broker_password)@broker:6379/0"
keep database_url "postgresql://orch:$(cat secrets/database_password)@postgres:5432/orch"
echo 'The secrets are in ./secrets.'
