package main

import (
	"fmt"
	"maps"
	"time"

	"github.com/anishathalye/porcupine"
)

// State is the whole store. It is never changed, only copied.
type state struct {
	revision int64
	keys     map[string]shown
}

func (s state) put(key, value string, revision int64) {
	before, exists := s.keys[key]
	if !exists {
		before.created = revision
	}
	s.keys[key] = shown{value, before.created, revision, before.version + 1}
}

// step says whether an operation could have been next, and what it makes of the store.
func step(before state, one operation) (bool, state) {
	switch one.kind {
	case get:
		return one.answer.revision == before.revision && sees(before, one.answer.shown, one.key), before
	case list:
		all := []string{}
		for number := range keys {
			all = append(all, keyOf(number))
		}
		return one.answer.revision == before.revision && sees(before, one.answer.shown, all...), before
	case replace:
		holds := before.keys[one.key].modified == one.expected
		if !one.answer.held {
			return !holds && one.answer.revision == before.revision && sees(before, one.answer.shown, one.key), before
		}
		if !holds {
			return false, before
		}
	}
	after := state{before.revision + 1, maps.Clone(before.keys)}
	switch one.kind {
	case put, replace:
		after.put(one.key, one.value, after.revision)
	case pair:
		after.put(one.key, one.value, after.revision)
		after.put(one.other, one.value, after.revision)
	case remove:
		delete(after.keys, one.key)
		after.put(one.marker, one.value, after.revision)
	}
	return one.answer.revision == after.revision, after
}

// sees says whether exactly those of `wanted` that exist were shown, as they are.
func sees(now state, found map[string]shown, wanted ...string) bool {
	count := 0
	for _, key := range wanted {
		if state, exists := now.keys[key]; exists {
			count++
			if found[key] != state {
				return false
			}
		}
	}
	return count == len(found)
}

var model = porcupine.Model{
	Init: func() any { return state{1, map[string]shown{}} },
	Step: func(before, input, _ any) (bool, any) { return step(before.(state), input.(operation)) },
	Equal: func(one, other any) bool {
		a, b := one.(state), other.(state)
		return a.revision == b.revision && maps.Equal(a.keys, b.keys)
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
}

// check compares what clients were told with what happened. `last` is a value that was written when all clients had ended.
func check(recorded *history, events []event, last string) error {
	happened := map[string]int64{}
	for _, one := range events {
		if one.isDelete {
			continue
		}
		if revision, seen := happened[one.value]; seen && revision != one.revision {
			return fmt.Errorf("value %s was written twice, at %d and %d", one.value, revision, one.revision)
		}
		happened[one.value] = one.revision
	}
	explained := map[string]bool{last: true}
	known, unknown, lost := []porcupine.Operation{}, 0, 0
	end := recorded.now()
	for _, one := range recorded.operations {
		revision, isThere := happened[one.value]
		isWrite := one.kind != get && one.kind != list
		explained[one.value] = explained[one.value] || isWrite
		if one.isUnknown {
			if !isWrite || !isThere {
				continue
			}
			// It happened at some time, perhaps long after its client gave up.
			unknown++
			one.answer, one.ended = answer{revision: revision, held: true}, end
		} else if isWrite && one.answer.held && revision != one.answer.revision {
			lost++
			fmt.Printf("lost: %+v is in the log at %d\n", one, revision)
		}
		known = append(known, porcupine.Operation{ClientId: one.client, Input: one, Call: one.began, Output: nil, Return: one.ended})
	}
	if lost > 0 {
		return fmt.Errorf("%d acknowledged writes are lost", lost)
	}
	for value := range happened {
		if !explained[value] {
			return fmt.Errorf("value %s was written by nobody", value)
		}
	}
	result, _ := porcupine.CheckOperationsVerbose(model, known, 2*time.Minute)
	fmt.Printf("%d operations, %d of unknown outcome that happened, %d events: %s\n", len(recorded.operations), unknown, len(events), result)
	if result != porcupine.Ok {
		return fmt.Errorf("the history is not linearizable: %s", result)
	}
	return nil
}
