# SPDX-License-Identifier: MIT
# bash completion for fflushctl(8)
# shellcheck shell=bash disable=SC2207

_fflushctl_sites() {
	fflushctl list --by site 2>/dev/null | awk 'NR > 1 && $1 !~ /[():[]/ { print $1 }'
}

_fflushctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
	local verbs='list show flush watch deliver add refresh purge import verify status check metrics export enable-postfix disable-postfix'
	local options='--config --instance --socket --host --timeout --quiet --json --version --help'

	COMPREPLY=()
	case $prev in
	-c | --config | -s | --socket | -o | --output)
		COMPREPLY=($(compgen -f -- "$cur"))
		return
		;;
	-b | --by)
		COMPREPLY=($(compgen -W 'records messages deferred newest flushed site' -- "$cur"))
		return
		;;
	-[iHtler] | --instance | --host | --timeout | --top | --limit | --every | --stop-if-deferred | --reason | --*-warning | --*-critical)
		return
		;;
	esac

	# The command is the first word that is neither an option nor the value of one.
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-[cisHtblero] | --config | --instance | --socket | --host | --timeout | --by | --top | --limit | --every | --stop-if-deferred | --reason | --output | --*-warning | --*-critical) i=$((i + 1)) ;;
		-*) ;;
		*)
			verb=${COMP_WORDS[i]}
			break
			;;
		esac
	done

	case $verb in
	list) options+=' --by --top --subdomains' ;;
	show | watch) options+=' --subdomains' ;;
	flush) options+=' --dry-run --subdomains --wait --limit --every --stop-if-deferred --reason' ;;
	deliver) options+=' --dry-run --wait --reason' ;;
	refresh | purge) options+=' --reason' ;;
	import | export | enable-postfix | disable-postfix) options+=' --dry-run' ;;
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
