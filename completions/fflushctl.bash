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

_fflushctl_messages() {
	fflushctl --json show '*' 2>/dev/null | grep -o '"queue_id":"[^"]*"' | cut -d '"' -f 4
}

_fflushctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
	local verbs='list show history flush watch deliver add refresh purge import verify status check metrics export enable-postfix disable-postfix help'
	local options='--config --instance --socket --host --timeout --quiet --json --version --help'

	COMPREPLY=()
	# "--by=VALUE" is one word, or three if readline(3) divides words at "=".
	if [[ $cur == --*=* ]]; then
		prev=${cur%%=*} cur=${cur#*=}
	elif [[ $cur == = ]]; then
		cur=''
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	case $prev in
	-c | --config | -s | --socket | -o | --output)
		COMPREPLY=($(compgen -f -- "$cur"))
		return
		;;
	-b | --by)
		COMPREPLY=($(compgen -W 'site records messages deferred active hold oldest flushed reason id queue age size due sender recipient' -- "$cur"))
		return
		;;
	-i | --instance)
		COMPREPLY=($(compgen -W "$(postmulti -l 2>/dev/null | awk '$1 != "-" { print $1 }')" -- "$cur"))
		return
		;;
	-H | --host)
		COMPREPLY=($(compgen -W "$(_fflushctl_hosts)" -- "$cur"))
		return
		;;
	--since)
		COMPREPLY=($(compgen -W 'today yesterday 2h 7d' -- "$cur"))
		return
		;;
	-[tler] | --timeout | --top | --match | --older-than | --watch | --limit | --every | --stop-if-deferred | --reason | --*-warning | --*-critical)
		return
		;;
	esac

	# The command is the first word that is neither an option nor the value of one.
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-[cisHtblero] | --config | --instance | --socket | --host | --timeout | --by | --top | --match | --older-than | --watch | --limit | --every | --stop-if-deferred | --reason | --output | --since | --*-warning | --*-critical) i=$((i + 1)) ;;
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
	history) options+=' --since --subdomains --top' ;;
	flush) options+=' --all --dry-run --subdomains --wait --limit --every --stop-if-deferred --reason' ;;
	deliver) options+=' --dry-run --wait --reason' ;;
	refresh | purge) options+=' --reason' ;;
	import | export | enable-postfix | disable-postfix) options+=' --dry-run' ;;
	verify) options+=' --repair' ;;
	status) options+=' --no-start' ;;
	check) options+=' --oldest-warning --oldest-critical --refresh-warning --refresh-critical --deferred-warning --deferred-critical --unrecorded-warning --unrecorded-critical' ;;
	metrics) options+=' --output --subdomains --top' ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$options" -- "$cur"))
	elif [[ -z $verb ]]; then
		COMPREPLY=($(compgen -W "$verbs" -- "$cur"))
	elif [[ $verb == help ]]; then
		COMPREPLY=($(compgen -W "$verbs" -- "$cur"))
	elif [[ $verb == deliver ]]; then
		COMPREPLY=($(compgen -W "$(_fflushctl_messages)" -- "$cur"))
	elif [[ $verb == @(list|show|history|flush|watch|add|metrics) ]]; then
		COMPREPLY=($(compgen -W "$(_fflushctl_sites)" -- "$cur"))
	fi
}
complete -F _fflushctl fflushctl
