// One /v1 for all models: a request goes to the route that serves the model that its body names.
//
// Which models a route serves is asked of its engines (location /models_of/ROUTE, which nginx keeps for some seconds), so it
// stays right when an engine is away or a model was changed. Written for njs 0.7.9, the oldest one that is packaged: no
// state is kept between requests, and there is no for-of, no spread and no shared dictionary.

import table from 'routing.js';

const QUOTE = 34, COMMA = 44, COLON = 58, OPEN_LIST = 91, BACKSLASH = 92, CLOSE_LIST = 93, OPEN = 123, CLOSE = 125;
// What is done before other requests have their turn: so many bytes, in so many steps. A string's end is found in one step.
const BYTES = 131072, STEPS = 1000;
// A body of 20 MB with images or text takes fewer. Without a bound, one made for it would keep a worker busy for a minute.
const MOST_STEPS = 4000000;
const TOO_LARGE = 'The request is larger than this gateway lets through.';
const LONGEST_NAME = 1000;
// Whoever escapes each letter of "model" needs no more signs.
const LONGEST_KEY = 32;

function failure(status, code, message) {
    return { status: status, code: code, message: message };
}

function no_json(why) {
    return failure(400, 'invalid_json', 'The body is no JSON object that can be read: ' + why + '.');
}

function is_space(sign) {
    return sign === 32 || sign === 10 || sign === 13 || sign === 9;
}

// What a literal (a number, true, false, null) is made of.
function is_literal(sign) {
    return sign >= 48 && sign <= 57 || sign >= 97 && sign <= 122 || sign >= 65 && sign <= 90 || sign === 43 || sign === 45
        || sign === 46;
}

// Where the nearest quote or bracket is, from a place on. Where each was seen last is kept, so that nothing is searched twice.
const BRACKETS = [QUOTE, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST];
function nearest(view, seen, place) {
    let least = view.length;
    for (let index = 0; index < 5; index++) {
        if (seen[index] < place) {
            const found = view.indexOf(BRACKETS[index], place);
            seen[index] = found < 0 ? view.length : found;
        }
        if (seen[index] < least) {
            least = seen[index];
        }
    }
    return least;
}

// Goes through the next piece of the body. Sets state.failed, or state.ended once the object has ended.
function scan(state) {
    const body = state.body, start = state.at, view = body.subarray(start, start + BYTES), size = view.length;
    const seen = [-1, -1, -1, -1, -1];
    let place = 0, steps = 0;
    while (place < size && steps < STEPS && state.failed === null) {
        steps++;
        if (state.in_string) {
            const quote = view.indexOf(QUOTE, place);
            if (quote < 0) {
                place = size;
                break;
            }
            let before = start + quote - 1;
            while (before > state.begin && body[before] === BACKSLASH) {
                before--;
                steps++;
                if (start + quote - 1 - before > STEPS) {
                    state.failed = no_json('it has more than ' + STEPS + ' backslashes in a row');
                    break;
                }
            }
            place = quote + 1;
            if ((start + quote - 1 - before) % 2 === 0) {
                state.in_string = false;
                if (state.depth === 1) {
                    take(state, start + place);
                }
            }
            continue;
        }
        if (state.depth > 1) {
            place = nearest(view, seen, place);
            if (place === size) {
                break;
            }
        }
        const sign = view[place];
        if (sign === QUOTE) {
            state.in_string = true;
            state.begin = start + place;
        } else if (sign === OPEN || sign === OPEN_LIST) {
            state.depth++;
        } else if (sign === CLOSE || sign === CLOSE_LIST) {
            state.depth--;
            if (state.depth === 0) {
                state.ended = true;
            }
        } else if (sign === COLON) {
            state.after_colon = true;
            if (state.key === 'model') {
                if (state.named) {
                    state.failed = failure(400, 'invalid_model', 'The body has the field model twice.');
                }
                state.named = true;
            }
        } else if (sign === COMMA) {
            state.after_colon = false;
            state.key = '';
        } else if (!is_space(sign) && !is_literal(sign)) {
            state.failed = no_json('there is a sign outside of strings that JSON does not have');
        }
        place++;
        // Whatever comes after the object is for whoever called.
        if (state.ended) {
            break;
        }
    }
    state.at = start + place;
    state.steps += steps;
    if (state.steps > MOST_STEPS) {
        state.failed = failure(413, 'request_too_large', 'The body has too many strings and values for this gateway.');
    }
}

// A string of the top level has ended: a key, or the value of one.
function take(state, end) {
    if (!state.after_colon) {
        state.key = end - state.begin > LONGEST_KEY ? '' : unescaped(state.body, state.begin, end);
    } else if (state.key === 'model') {
        if (end - state.begin > LONGEST_NAME) {
            state.failed = failure(400, 'invalid_model', 'The name in the field model is too long.');
        } else {
            state.model = unescaped(state.body, state.begin, end);
        }
    }
}

// Stands for another turn of nginx's event loop, in which it serves others. A timer of 0 ms would run before them.
function turn() {
    return new Promise(function (resolve) { setTimeout(resolve, 1); });
}

// The top-level field "model" of a JSON object, without parsing all of it. The whole body is gone through: the engines take
// the last one of two fields of the same name, so two are refused. Only where strings begin and end and how deep it is
// nested is looked at; whatever else is no JSON is left for the engine to refuse.
// Returns { model } or a failure.
async function model_of(body) {
    const state = {
        body: body, at: 0, steps: 0, depth: 0, in_string: false, begin: 0, key: '', after_colon: false, named: false,
        model: '', ended: false, failed: null,
    };
    while (state.at < body.length && state.at < BYTES && is_space(body[state.at])) {
        state.at++;
    }
    if (state.at === body.length || body[state.at] !== OPEN) {
        return no_json('it does not begin with {');
    }
    scan(state);
    while (state.failed === null && !state.ended && state.at < body.length) {
        await turn();
        scan(state);
    }
    if (state.failed !== null) {
        return state.failed;
    }
    if (!state.ended) {
        return no_json('it ends too early');
    }
    for (let at = state.at; at < body.length; at++) {
        if (!is_space(body[at]) || at > state.at + BYTES) {
            return no_json('something follows its last }');
        }
    }
    if (state.model === '') {
        return failure(400, 'invalid_model', 'The body must name a model in the field model, as a string.');
    }
    return { model: state.model };
}

function unescaped(body, begin, end) {
    try {
        return JSON.parse(body.subarray(begin, end).toString());
    } catch (error) {
        return '';
    }
}

// The models that a route serves: a list of what its engines say of each, or null if they can't be asked.
async function models_of(r, route) {
    try {
        const reply = await r.subrequest('/models_of/' + route.name, { method: 'GET' });
        if (reply.status !== 200) {
            return null;
        }
        return JSON.parse(reply.responseText).data.filter(function (model) { return typeof model.id === 'string'; });
    } catch (error) {
        r.warn('what ' + route.name + ' serves is no list of models: ' + error.message);
        return null;
    }
}

// The names that the client's entry has, or null for all.
function admitted_models(r) {
    return table.clients[r.variables.client] || null;
}

// What this client may use, by all routes, each model once: from the first route that serves it.
// Returns { models, away }, the latter the routes whose engines can't be asked.
async function catalogue(r) {
    const admitted = admitted_models(r), models = [], away = [], known = {};
    const answers = await Promise.all(table.routes.map(function (route) { return models_of(r, route); }));
    answers.forEach(function (answer, index) {
        if (answer === null) {
            away.push(table.routes[index].name);
            return;
        }
        answer.forEach(function (model) {
            const name = 'model ' + model.id;
            if (!known[name] && (admitted === null || admitted.indexOf(model.id) >= 0)) {
                known[name] = true;
                models.push(model);
            }
        });
    });
    return { models: models, away: away };
}

function listed(names) {
    return names.length ? names.slice(0, 50).join(', ') + (names.length > 50 ? ', ...' : '') : 'none';
}

async function unknown(r, name) {
    const found = await catalogue(r);
    const there = ' There is: ' + listed(found.models.map(function (model) { return model.id; })) + '.';
    if (found.away.length) {
        return failure(502, 'upstream_unavailable', 'No engine that can be reached serves the model \'' + name + '\'; not '
            + 'reached: ' + found.away.join(', ') + '.' + there + ' Try again later.');
    }
    return failure(404, 'model_not_found', 'The model \'' + name + '\' does not exist.' + there);
}

const ANTHROPIC_TYPES = { 400: 'invalid_request_error', 403: 'permission_error', 404: 'not_found_error',
    413: 'request_too_large', 502: 'api_error' };

function answer(r, status, content) {
    r.headersOut['Content-Type'] = 'application/json';
    r.headersOut['Cache-Control'] = 'no-store';
    r.return(status, JSON.stringify(content));
}

// Errors in the form that the client reads, as those of errors.conf.
function refuse(r, failed) {
    if (r.variables.errors_form === 'anthropic') {
        const kind = ANTHROPIC_TYPES[failed.status];
        return answer(r, failed.status, { type: 'error', error: { type: kind, message: failed.message } });
    }
    const type = failed.status < 500 ? 'invalid_request_error' : 'server_error';
    const param = failed.code.indexOf('model') >= 0 ? 'model' : null;
    answer(r, failed.status, { error: { message: failed.message, type: type, param: param, code: failed.code } });
}

function not_admitted(admitted, name) {
    return failure(403, 'model_not_allowed', 'This key may not use the model \'' + name + '\'. It may use: '
        + listed(admitted) + '.');
}

// A POST to a path of /v1/.
async function route(r) {
    const body = r.requestBuffer;
    if (!body) {
        return refuse(r, no_json('it is empty'));
    }
    const asked = await model_of(body);
    if (asked.model === undefined) {
        return refuse(r, asked);
    }
    const admitted = admitted_models(r);
    if (admitted !== null && admitted.indexOf(asked.model) < 0) {
        return refuse(r, not_admitted(admitted, asked.model));
    }
    // In the table's order. Who comes after the one that serves it is not waited for.
    for (let index = 0; index < table.routes.length; index++) {
        const candidate = table.routes[index];
        const models = await models_of(r, candidate);
        if (models !== null && models.some(function (model) { return model.id === asked.model; })) {
            if (candidate.paths.indexOf(r.uri) < 0) {
                return refuse(r, failure(404, 'not_found', 'The engine that serves the model \'' + asked.model
                    + '\' has no such path.'));
            }
            // nginx itself holds the body against the largest limit among the routes.
            if (body.length > candidate.body_bytes) {
                return refuse(r, failure(413, 'request_too_large', TOO_LARGE));
            }
            return r.internalRedirect('@to_' + candidate.name);
        }
    }
    const failed = await unknown(r, asked.model);
    refuse(r, failed);
}

// GET /v1/models
async function list(r) {
    const found = await catalogue(r);
    if (found.away.length === table.routes.length) {
        return refuse(r, failure(502, 'upstream_unavailable', 'No engine can be reached. Try again later.'));
    }
    answer(r, 200, { object: 'list', data: found.models });
}

// GET /v1/models/NAME
async function one(r) {
    const name = r.uri.slice('/v1/models/'.length), admitted = admitted_models(r);
    if (admitted !== null && admitted.indexOf(name) < 0) {
        return refuse(r, not_admitted(admitted, name));
    }
    const found = await catalogue(r);
    const named = found.models.filter(function (model) { return model.id === name; });
    if (named.length) {
        return answer(r, 200, named[0]);
    }
    const failed = await unknown(r, name);
    refuse(r, failed);
}

export default { route, list, one, model_of };
