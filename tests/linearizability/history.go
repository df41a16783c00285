package main

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	keys   = 5
	prefix = "/registry/"
	// A client whose operation failed cannot know its outcome and goes on as another one.
	operationTimeout = 2 * time.Second
)

func keyOf(number int) string { return fmt.Sprintf("%skey-%d", prefix, number) }

// markerOf is where a client puts the value that tells which of its deletions an event belongs to.
func markerOf(client int) string { return fmt.Sprintf("%smarker-%d", prefix, client) }

type kind int

const (
	put kind = iota
	replace
	remove
	pair
	get
	list
)

// An operation as its client saw it.
type operation struct {
	kind   kind
	client int
	// Put; for a replacement only if the key is at `expected`; for a removal under `marker`; for a pair under both keys.
	key, other, marker, value string
	expected                  int64
	began, ended              int64
	answer                    answer
	// No answer came.
	isUnknown bool
}

// An answer holds what a client learnt: the revision, whether a condition held, and the keys it was shown.
type answer struct {
	revision int64
	held     bool
	shown    map[string]shown
}

type shown struct {
	value                      string
	created, modified, version int64
}

type history struct {
	lock       sync.Mutex
	began      time.Time
	operations []operation
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) now() int64 { return time.Since(h.began).Nanoseconds() }

func (h *history) add(one operation) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.operations = append(h.operations, one)
}

// work does one operation after the other until it is told to stop.
func work(ctx context.Context, endpoint string, recorded *history, number int, random *rand.Rand) {
	client, err := dial(endpoint)
	if err != nil {
		return
	}
	defer client.Close()
	known := map[string]int64{}
	for turn := 0; ctx.Err() == nil; turn++ {
		one := operation{client: number, key: keyOf(random.Intn(keys)), value: fmt.Sprintf("%d-%d", number, turn)}
		one.kind = []kind{put, replace, replace, remove, pair, get, get, list}[random.Intn(8)]
		one.other, one.marker, one.expected = keyOf(random.Intn(keys)), markerOf(number), known[one.key]
		if one.kind == pair && one.other == one.key {
			one.kind = put
		}
		one.began = recorded.now()
		short, cancel := context.WithTimeout(context.Background(), operationTimeout)
		one.answer, err = perform(short, client, one)
		cancel()
		one.ended, one.isUnknown = recorded.now(), err != nil
		for key, state := range one.answer.shown {
			known[key] = state.modified
		}
		recorded.add(one)
		if err != nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func perform(ctx context.Context, client *clientv3.Client, one operation) (answer, error) {
	switch one.kind {
	case get, list:
		options := []clientv3.OpOption{}
		key := one.key
		if one.kind == list {
			key, options = prefix+"key-", append(options, clientv3.WithPrefix())
		}
		found, err := client.Get(ctx, key, options...)
		if err != nil {
			return answer{}, err
		}
		return answer{revision: found.Header.Revision, shown: shownIn((*clientv3.GetResponse)(found))}, nil
	case put:
		done, err := client.Put(ctx, one.key, one.value)
		if err != nil {
			return answer{}, err
		}
		return answer{revision: done.Header.Revision, held: true}, nil
	}
	txn := client.Txn(ctx)
	switch one.kind {
	case replace:
		txn = txn.If(clientv3.Compare(clientv3.ModRevision(one.key), "=", one.expected)).
			Then(clientv3.OpPut(one.key, one.value)).Else(clientv3.OpGet(one.key))
	case remove:
		txn = txn.Then(clientv3.OpDelete(one.key), clientv3.OpPut(one.marker, one.value))
	case pair:
		txn = txn.Then(clientv3.OpPut(one.key, one.value), clientv3.OpPut(one.other, one.value))
	}
	done, err := txn.Commit()
	if err != nil {
		return answer{}, err
	}
	learnt := answer{revision: done.Header.Revision, held: done.Succeeded}
	if !done.Succeeded {
		learnt.shown = shownIn((*clientv3.GetResponse)(done.Responses[0].GetResponseRange()))
	}
	return learnt, nil
}

func shownIn(found *clientv3.GetResponse) map[string]shown {
	all := map[string]shown{}
	for _, kv := range found.Kvs {
		all[string(kv.Key)] = shown{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version}
	}
	return all
}
