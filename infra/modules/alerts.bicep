// What wakes an operator. Each is a question to the app's own log events: docs/operations.md lists them.

param name string
param location string
param tags object
param logsId string
param storageId string

@description('Who is told; empty: alerts are seen in the portal only.')
param actionGroupId string

@description('Minutes after which a delivery that is not done is too old.')
param oldestMinutes int

@description('Messages in all queues together that are too many.')
param backlog int

@description('Hours without a delivery that are too many in the expected window; 0: no such alert.')
param quietHours int

@description('The expected window: the hours of the day (UTC) between which deliveries come.')
param expectedFrom int
param expectedTo int

@description('The expected window: the days of the week, 0 for Sunday.')
param expectedDays array

var always = [
  {
    name: 'parked'
    tells: 'Deliveries, rows or events were given up on'
    severity: 1
    every: 'PT5M'
    window: 'PT15M'
    query: '''
AppTraces
| where Message in ('delivery.parked', 'delivery.held', 'row.parked', 'external_event.dropped', 'answer.dropped')
'''
  }
  {
    name: 'operator'
    tells: 'Work waits until an operator has mended something: a role, a setting, a map'
    severity: 1
    every: 'PT5M'
    window: 'PT15M'
    query: '''
AppTraces
| where Message == 'request.misconfigured' or (Message endswith '.requeued' and SeverityLevel >= 3)
'''
  }
  {
    name: 'oldest'
    tells: 'A delivery has been on its way for too long'
    severity: 2
    every: 'PT15M'
    window: 'P1D'
    query: format('''
AppTraces
| where Message in ('delivery.accepted', 'delivery.done', 'delivery.cancelled', 'delivery.parked', 'delivery.held')
| extend delivery = tostring(Properties.delivery)
| summarize accepted = minif(TimeGenerated, Message == 'delivery.accepted'), ended = countif(Message != 'delivery.accepted') by delivery
| where ended == 0 and accepted < ago({0}m)
''', oldestMinutes)
  }
  {
    name: 'errors'
    tells: 'More than one in twenty requests to the endpoints failed'
    severity: 1
    every: 'PT5M'
    window: 'PT15M'
    query: '''
AppTraces
| summarize failed = countif(Message in ('request.failed', 'request.misconfigured', 'request.unavailable')), accepted = countif(Message == 'delivery.accepted')
| where failed >= 5 and failed * 20 > failed + accepted
'''
  }
  {
    name: 'throttled'
    tells: 'A neighbour throttles, and work goes back to the queue again and again'
    severity: 3
    every: 'PT15M'
    window: 'PT30M'
    query: '''
AppTraces
| where Message endswith '.requeued'
| where Properties.reason has '429' or Properties.reason has 'pause'
| summarize times = count()
| where times > 50
'''
  }
  {
    name: 'gap'
    tells: 'A sender has told of events that never came'
    severity: 2
    every: 'PT15M'
    window: 'PT15M'
    query: '''
AppTraces
| where Message == 'notification.gap'
'''
  }
  {
    name: 'refused'
    tells: 'Entries or rows were refused: somebody must mend them, or their cause'
    severity: 2
    every: 'PT15M'
    window: 'PT15M'
    query: '''
AppTraces
| where (Message == 'delivery.done' and toint(Properties.refused) > 0) or (Message == 'row.mirrored' and Properties.action == 'refused')
'''
  }
  {
    name: 'job'
    tells: 'A job that an operator started has failed: the rest of it is not done'
    severity: 2
    every: 'PT15M'
    window: 'PT15M'
    query: '''
AppTraces
| where Message == 'job.failed'
'''
  }
  {
    name: 'unproven'
    tells: 'Requests to the address of a sender are not proven: its secret has changed, or somebody tries'
    severity: 2
    every: 'PT15M'
    window: 'PT15M'
    query: '''
AppTraces
| where Message == 'request.unproven' and isnotempty(Properties.sender)
| summarize times = count() by sender = tostring(Properties.sender)
| where times >= 10
'''
  }
  {
    name: 'audit'
    tells: 'Somebody was shown data, or wrote it, without a whole audit entry'
    severity: 1
    every: 'PT15M'
    window: 'PT15M'
    query: '''
AppTraces
| where Message in ('audit.dropped', 'audit.incomplete')
'''
  }
  {
    name: 'silent'
    tells: 'The app has told nothing for two hours, not even of its housekeeping'
    severity: 1
    every: 'PT15M'
    window: 'PT2H'
    query: '''
AppTraces
| summarize told = countif(Message == 'housekeeping.done')
| where told == 0
'''
  }
]

var expected = [
  {
    name: 'quiet'
    tells: 'No delivery came, though some were expected'
    severity: 2
    every: 'PT15M'
    window: 'PT${max(quietHours, 1)}H'
    query: format('''
AppTraces
| summarize accepted = countif(Message == 'delivery.accepted')
| where accepted == 0
| where hourofday(now()) >= {0} and hourofday(now()) < {1} and toint(dayofweek(now()) / 1d) in ({2})
''', expectedFrom + quietHours, expectedTo, join(expectedDays, ', '))
  }
]

resource rule 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for one in concat(always, quietHours > 0 ? expected : []): {
  name: '${name}-${one.name}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: '${name}: ${one.tells}'
    enabled: true
    severity: one.severity
    scopes: [
      logsId
    ]
    evaluationFrequency: one.every
    windowSize: one.window
    autoMitigate: true
    // A new workspace has no such table before the first log event.
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: one.query
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: empty(actionGroupId) ? [] : [
        actionGroupId
      ]
    }
  }
}]

// Told by storage itself, once an hour: heard also when the app is dead.
resource waiting 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${name}-backlog'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    severity: 2
    scopes: [
      '${storageId}/queueServices/default'
    ]
    evaluationFrequency: 'PT1H'
    windowSize: 'PT1H'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'messages'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.Storage/storageAccounts/queueServices'
          metricName: 'QueueMessageCount'
          timeAggregation: 'Average'
          operator: 'GreaterThan'
          threshold: backlog
        }
      ]
    }
    actions: empty(actionGroupId) ? [] : [
      {
        actionGroupId: actionGroupId
      }
    ]
  }
}
