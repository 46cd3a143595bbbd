# SPDX-License-Identifier: MIT
# bash completion for fflushctl(8)
# shellcheck shell=bash disable=SC2207

_fflushctl_sites() {
	fflushctl list --all --by site --no-legend --no-pager 2>/dev/null | awk '$1 !~ /[():[]/ { print $1 }'
}

# Those of the file, and its groups.
_fflushctl_hosts() {
	sed -n 's/#.*//; s/^[ \t]*\([^:]*[^: \t]\)[ \t]*:\(.*\)/@\1 \2/p' "${FFLUSHCTL_HOSTS:-/etc/fflushd/hosts.conf}" 2>/dev/null |
		tr -s ' \t,' '\n' | sort -u
}

_fflushctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
	local verbs='list show history flush watch deliver add refresh purge import verify status check metrics export enable-postfix disable-postfix'
	local options='--config --instance --socket --host --timeout --quiet --json --version --help'

	COMPREPLY=()
	case $prev in
	-c | --config | -s | --socket | -o | --output)
		COMPREPLY=($(compgen -f -- "$cur"))
		return
		;;
	-b | --by)
		COMPREPLY=($(compgen -W 'site records messages deferred active hold oldest flushed reason id queue age size due sender recipient' -- "$cur"))
		return
		;;
	-H | --host)
		COMPREPLY=($(compgen -W "$(_fflushctl_hosts)" -- "$cur"))
		return
		;;
	-[itler] | --instance | --timeout | --top | --match | --older-than | --watch | --since | --limit | --every | --stop-if-deferred | --reason | --*-warning | --*-critical)
		return
		;;
	esac

	# The command is the first word that is neither an option nor the value of one.
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-[cisHtblero] | --config | --instance | --socket | --host | --timeout | --by | --top | --match | --older-than | --watch | --since | --limit | --every | --stop-if-deferred | --reason | --output | --*-warning | --*-critical) i=$((i + 1)) ;;
		-*) ;;
		*)
			verb=${COMP_WORDS[i]}
			break
			;;
		esac
	done

	case $verb in
	list) options+=' --by --top --subdomains --reverse --no-legend --no-pager --all --long --match --older-than --watch' ;;
	show) options+=' --by --top --subdomains --reverse --no-legend --no-pager --ids' ;;
	watch) options+=' --subdomains' ;;
	flush) options+=' --dry-run --subdomains --wait --limit --every --stop-if-deferred --reason' ;;
	deliver) options+=' --dry-run --wait --reason' ;;
	refresh | purge) options+=' --reason' ;;
	import | export | enable-postfix | disable-postfix) options+=' --dry-run' ;;
	history) options+=' --since --subdomains --top' ;;
	verify) options+=' --repair' ;;
	status) options+=' --no-start' ;;
	check) options+=' --oldest-warning --oldest-critical --refresh-warning --refresh-critical --deferred-warning --deferred-critical' ;;
	metrics) options+=' --output --subdomains --top' ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$options" -- "$cur"))
	elif [[ -z $verb ]]; then
		COMPREPLY=($(compgen -W "$verbs" -- "$cur"))
	elif [[ $verb == @(list|show|flush|watch|add|metrics) ]]; then
		COMPREPLY=($(compgen -W "$(_fflushctl_sites)" -- "$cur"))
	fi
}
complete -F _fflushctl fflushctl
